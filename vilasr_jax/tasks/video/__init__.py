"""Videos: direction, order of appearance, number, and the place of an object that left the image."""

from vilasr_jax.tasks.video.family import VideoFamily as VideoFamily
from vilasr_jax.tasks.video.scene import LEVELS as LEVELS
