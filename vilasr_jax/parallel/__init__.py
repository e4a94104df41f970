"""Devices, meshes and layouts."""

from vilasr_jax.parallel.distributed import join as join
from vilasr_jax.parallel.mesh import batch_axis as batch_axis
from vilasr_jax.parallel.mesh import make_mesh as make_mesh
from vilasr_jax.parallel.mesh import put_batch as put_batch
from vilasr_jax.parallel.mesh import replicated as replicated
