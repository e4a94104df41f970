"""Loading by the hosts of a slice that is not here: what each reads, and the most memory it needs.

    python -m tests.checkpoint.load_hosts 7b v5e-64 16 4 FOLDER    # fsdp 16 x model 4

Each host is a process that reads its blocks of every weight with the code of a run, and keeps them, as its
devices would. FOLDER is written first, with random weights, unless it exists; remove it afterwards.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path

import jax

from tests.slice_devices import slice_devices
from vilasr_jax.bench.convert import write_random
from vilasr_jax.checkpoint.hf_import import open_hf, published_weights
from vilasr_jax.checkpoint.hf_layout import abstract_params, named_leaves
from vilasr_jax.checkpoint.safetensors_files import StoredTensor
from vilasr_jax.checkpoint.sharded_import import file_sharding, host_blocks
from vilasr_jax.config import MeshSection
from vilasr_jax.models import preset
from vilasr_jax.parallel import make_mesh
from vilasr_jax.slices import SLICES

GIB = 2**30


def load_host(folder: Path, mesh: jax.sharding.Mesh, process: int) -> dict[str, int]:
    """What one host reads and holds: {"read", "held", "peak"} bytes."""
    read = 0
    original = StoredTensor.read

    def counted(self, rows=None, dtype=None):
        nonlocal read
        values = original(self, rows, dtype)
        read += values.size * self.dtype.itemsize
        return values

    StoredTensor.read = counted
    try:
        config, _, stored = open_hf(folder, param_dtype="float32")
        weights, held = published_weights(config, stored), []
        for path, leaf in named_leaves(abstract_params(config)).items():
            sharding = file_sharding(weights, path, leaf.shape, mesh)
            held += host_blocks(weights, path, leaf.shape, sharding, process).values()
    finally:
        StoredTensor.read = original
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"read": read, "held": sum(block.nbytes for block in held), "peak": peak}


def main(size: str, name: str, fsdp: str, model: str, folder: str, process: str = "") -> None:
    """Prints a line a host, each measured in a process of its own."""
    jax.config.update("jax_platforms", "cpu")
    section = MeshSection(data=1, fsdp=int(fsdp), model=int(model))
    if process:
        mesh = make_mesh(section, slice_devices(SLICES[name]))
        print(json.dumps(load_host(Path(folder), mesh, int(process))))
        return
    if not Path(folder).exists():
        write_random(preset(size, param_dtype="bfloat16"), Path(folder))
    for host in range(SLICES[name].hosts):
        words = [sys.executable, "-m", "tests.checkpoint.load_hosts", *sys.argv[1:], str(host)]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"host {host}", *(f"{key} {value / GIB:.3f} GiB" for key, value in found.items()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
