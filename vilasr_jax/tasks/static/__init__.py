"""Static images: places, numbers, sizes and distances of coloured objects."""

from vilasr_jax.tasks.static.family import StaticFamily as StaticFamily
from vilasr_jax.tasks.static.scene import LEVELS as LEVELS
