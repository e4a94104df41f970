"""Checkpoints: the training store, and Hugging Face import and export."""

from vilasr_jax.checkpoint.store import CheckpointStore as CheckpointStore
from vilasr_jax.checkpoint.store import Restored as Restored
