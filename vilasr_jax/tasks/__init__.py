"""Task families: rows, expert traces, and their replay through the drawing session."""

from vilasr_jax.tasks.family import Family as Family
from vilasr_jax.tasks.registry import get_family as get_family
from vilasr_jax.tasks.replay import replay as replay
from vilasr_jax.tasks.rows import Row as Row
from vilasr_jax.tasks.rows import Trace as Trace
from vilasr_jax.tasks.rows import chance as chance
