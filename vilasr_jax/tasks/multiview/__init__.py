"""Multi-view: a small room of coloured solids, seen by several cameras."""

from vilasr_jax.tasks.multiview.family import MultiviewFamily as MultiviewFamily
from vilasr_jax.tasks.multiview.room import LEVELS as LEVELS
