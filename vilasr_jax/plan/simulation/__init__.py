"""Steps and epochs of a job on simulated clocks, from a plan's seconds of their compiled calls."""

from vilasr_jax.plan.simulation.host_costs import HostCosts as HostCosts
from vilasr_jax.plan.simulation.job import read_plan as read_plan
from vilasr_jax.plan.simulation.job import simulate_job as simulate_job
from vilasr_jax.plan.simulation.lengths import Workload as Workload
from vilasr_jax.plan.simulation.table import print_job as print_job
