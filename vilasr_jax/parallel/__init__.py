"""Devices, meshes, layouts and hosts."""

from vilasr_jax.parallel.compile_cache import use_compile_cache as use_compile_cache
from vilasr_jax.parallel.devices import check_devices as check_devices
from vilasr_jax.parallel.devices import peak_flops as peak_flops
from vilasr_jax.parallel.distributed import join as join
from vilasr_jax.parallel.hosts import alone as alone
from vilasr_jax.parallel.hosts import any_host as any_host
from vilasr_jax.parallel.hosts import barrier as barrier
from vilasr_jax.parallel.hosts import from_writer as from_writer
from vilasr_jax.parallel.hosts import gather as gather
from vilasr_jax.parallel.hosts import gather_bytes as gather_bytes
from vilasr_jax.parallel.hosts import gather_results as gather_results
from vilasr_jax.parallel.hosts import is_writer as is_writer
from vilasr_jax.parallel.hosts import to_host as to_host
from vilasr_jax.parallel.mesh import batch_axis as batch_axis
from vilasr_jax.parallel.mesh import host_mesh as host_mesh
from vilasr_jax.parallel.mesh import host_rows as host_rows
from vilasr_jax.parallel.mesh import make_mesh as make_mesh
from vilasr_jax.parallel.mesh import mesh_hosts as mesh_hosts
from vilasr_jax.parallel.mesh import place as place
from vilasr_jax.parallel.mesh import put_batch as put_batch
from vilasr_jax.parallel.mesh import replicated as replicated
from vilasr_jax.parallel.mesh import sampling_mesh as sampling_mesh
