"""One process of a small pod: supervised steps, then GRPO; process 0 writes the final parameters, and how
much was gathered.

VILASR_COORDINATOR=... VILASR_NUM_PROCESSES=2 VILASR_PROCESS_ID=0 python -m tests.training.pod_run FOLDER
"""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import numpy as np
from rich.progress import Progress

from vilasr_jax.config import MeshSection, PackingSection
from vilasr_jax.parallel import hosts, is_writer, join, make_mesh, place, to_host

DEVICES = 4  # of the pod


def main(folder: Path) -> None:
    """Trains and writes `<folder>/params.npz` and `<folder>/sent.json`."""
    join()
    from tests import tiny
    from tests.training import samples
    from tests.training.test_resume import ADAM, JOB, scripted_run
    from vilasr_jax.models.qwen2_5_vl import param_shardings
    from vilasr_jax.tasks.sources import MappedSource
    from vilasr_jax.training.grpo import run_rl
    from vilasr_jax.training.sft import train_sft
    from vilasr_jax.training.stage import Stage

    assert jax.device_count() == DEVICES
    mesh = make_mesh(MeshSection(data=2, fsdp=2))
    rl = dataclasses.replace(JOB.rl, prompts=4, micro_batch=4, steps=2, kl_weight=0.1, importance_cap=2.0)
    packing = PackingSection(
        tokens=300, vision_rows=8, patches=24, lookahead=4, token_buckets=(260,), vision_row_buckets=(6,)
    )
    sent: list[int] = []  # bytes of each all-gather of this process
    all_gather = hosts._all_gather
    hosts._all_gather = lambda row: sent.append(row.nbytes) or all_gather(row)
    adam = dataclasses.replace(ADAM, learning_rate=1e-4)  # larger steps would magnify rounding
    job = dataclasses.replace(JOB, rl=dataclasses.replace(rl, optimizer=adam))
    params = place(tiny.params(), param_shardings(tiny.params(), mesh))
    for name, some in (("padded", job), ("packed", dataclasses.replace(job, packing=packing))):
        run = scripted_run(some, folder / name, mesh)
        data = run.batching.batches([MappedSource(range(23), samples.example)], [1], seed=3, batch=4)
        stage = Stage(folder / name / "sft", 3, 2, "sft")
        params = train_sft(run, stage, params, data, adam, Progress(disable=True))
    before = len(sent)
    params = to_host(run_rl(run, params, Progress(disable=True)))
    if is_writer():
        (folder / "sent.json").write_text(json.dumps({"sft": sent[:before], "rl": sent[before:]}))
        np.savez(folder / "params.npz", *[np.asarray(leaf) for leaf in jax.tree.leaves(params)])


if __name__ == "__main__":
    import os

    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_num_cpu_devices", DEVICES // int(os.environ.get("VILASR_NUM_PROCESSES", "1")))
    main(Path(sys.argv[1]))
