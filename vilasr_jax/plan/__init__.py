"""The ahead-of-time plan: a job's steps compiled for a TPU slice on any machine."""

from vilasr_jax.plan.run import plan as plan
from vilasr_jax.plan.run import refuse as refuse
from vilasr_jax.plan.run import sweep as sweep
from vilasr_jax.plan.table import print_plan as print_plan
from vilasr_jax.plan.table import print_sweep as print_sweep
