"""One process of a small run, supervised steps and then RL; a restart resumes, as `vilasr train` does.

[VILASR_COORDINATOR=... VILASR_NUM_PROCESSES=2 VILASR_PROCESS_ID=0] python -m tests.training.stages_run FOLDER
"""

import dataclasses
import sys
from pathlib import Path

import jax
from rich.progress import Progress

from vilasr_jax.config import MeshSection
from vilasr_jax.errors import STOPPED, Stopped
from vilasr_jax.parallel import join, make_mesh

SFT_STEPS, RL_STEPS = 24, 9


def main(folder: Path) -> None:
    """Trains in `<folder>/sft` and `<folder>/rl`."""
    join()
    from tests import tiny
    from tests.training import samples
    from tests.training.test_resume import ADAM, JOB, scripted_run
    from vilasr_jax.models.qwen2_5_vl import param_shardings
    from vilasr_jax.parallel import place
    from vilasr_jax.tasks.sources import MappedSource
    from vilasr_jax.training import interrupt
    from vilasr_jax.training.grpo import run_rl
    from vilasr_jax.training.sft import train_sft
    from vilasr_jax.training.stage import Stage

    interrupt.listen()
    mesh, quiet = make_mesh(MeshSection()), Progress(disable=True)
    rl = dataclasses.replace(JOB.rl, steps=RL_STEPS, save_every=2)
    run = scripted_run(dataclasses.replace(JOB, rl=rl), folder, mesh)
    stage = Stage(folder / "sft", SFT_STEPS, 3, "sft")
    if stage.done:
        params = stage.load_params(run.model.abstract_params)
    else:
        params = place(tiny.params(), param_shardings(tiny.params(), mesh))
        data = run.batching.batches([MappedSource(range(23), samples.example)], [1], seed=3, batch=4)
        params = train_sft(run, stage, params, data, ADAM, quiet)
    run_rl(run, params, quiet)


if __name__ == "__main__":
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        main(Path(sys.argv[1]))
    except Stopped as stopped:
        print(stopped, flush=True)
        sys.exit(STOPPED)
