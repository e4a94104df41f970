"""Model families, one folder each, their protocol (`family`) and their registry (`registry`).

Nothing here loads JAX; a model's weights and layouts are in `params` and `sharding`.
"""

from vilasr_jax.models.chat import ChatFormat as ChatFormat
from vilasr_jax.models.family import Model as Model
from vilasr_jax.models.family import ModelConfig as ModelConfig
from vilasr_jax.models.family import ModelFamily as ModelFamily
from vilasr_jax.models.images import ImageSpec as ImageSpec
from vilasr_jax.models.inputs import VisionInput as VisionInput
from vilasr_jax.models.registry import DEFAULT_PRESET as DEFAULT_PRESET
from vilasr_jax.models.registry import by_model_type as by_model_type
from vilasr_jax.models.registry import default_family as default_family
from vilasr_jax.models.registry import family_of as family_of
from vilasr_jax.models.registry import is_published_size as is_published_size
from vilasr_jax.models.registry import model_types as model_types
from vilasr_jax.models.registry import preset as preset
from vilasr_jax.models.registry import published_sizes as published_sizes
from vilasr_jax.models.registry import register as register
