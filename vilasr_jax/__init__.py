"""Drawing to reason, in JAX: a vision-language model that answers spatial questions by drawing on images."""

__version__ = "0.1.0"
