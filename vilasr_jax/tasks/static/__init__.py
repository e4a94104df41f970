"""Static pictures: where coloured objects are, how many, how large and how far apart."""

from vilasr_jax.tasks.static.family import StaticFamily as StaticFamily
from vilasr_jax.tasks.static.scene import LEVELS as LEVELS
