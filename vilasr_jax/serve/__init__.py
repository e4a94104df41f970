"""Serving: a page for questions to a model, and an OpenAI-compatible API with streaming."""

from vilasr_jax.serve.app import make_app as make_app
from vilasr_jax.serve.limits import ApiError as ApiError
from vilasr_jax.serve.limits import Limits as Limits
from vilasr_jax.serve.run import serve as serve
from vilasr_jax.serve.worker import Worker as Worker
