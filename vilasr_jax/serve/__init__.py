"""Serving: a page for questions to a model, and an OpenAI-compatible API with streaming.

Names are imported when they are used, so that flags can be checked without JAX.
"""

from etils import epy

with epy.lazy_api_imports(globals()):
    from vilasr_jax.serve.app import make_app as make_app
    from vilasr_jax.serve.limits import ApiError as ApiError
    from vilasr_jax.serve.limits import Limits as Limits
    from vilasr_jax.serve.run import serve as serve
    from vilasr_jax.serve.worker import Worker as Worker
