"""Checkpoints: the training store, and Hugging Face import and export.

Names are imported when they are used, so that an address can be checked without JAX.
"""

from etils import epy

with epy.lazy_api_imports(globals()):
    from vilasr_jax.checkpoint.convert import convert_from_hf as convert_from_hf
    from vilasr_jax.checkpoint.convert import convert_to_hf as convert_to_hf
    from vilasr_jax.checkpoint.hf_config import config_from_hf as config_from_hf
    from vilasr_jax.checkpoint.hf_export import export_hf as export_hf
    from vilasr_jax.checkpoint.hf_import import import_hf as import_hf
    from vilasr_jax.checkpoint.hf_import import load_hf as load_hf
    from vilasr_jax.checkpoint.store import CheckpointStore as CheckpointStore
    from vilasr_jax.checkpoint.store import Restored as Restored
