"""Videos: what moves where, in which order things appear, how many there are, where one that left must be."""

from vilasr_jax.tasks.video.family import VideoFamily as VideoFamily
from vilasr_jax.tasks.video.scene import LEVELS as LEVELS
