"""One process of two that meet data which can't be trained on: writes how each attempt ended.

VILASR_COORDINATOR=... VILASR_NUM_PROCESSES=2 VILASR_PROCESS_ID=0 python -m tests.training.pod_faults FOLDER
"""

import errno
import json
import sys
from pathlib import Path
from unittest import mock

import jax

from vilasr_jax.parallel import join

CONFIG = ["--config=tests/training/kill_config.py", "--config.mesh.cpu_devices=1"]


def ending(attempt) -> str:
    """How a call ends: the exit code, or the error."""
    try:
        attempt()
    except SystemExit as end:
        return f"exit {end.code}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "done"


def main(folder: Path) -> None:
    """Writes `<folder>/<process>.json`: the ending of each attempt by name."""
    join()
    from rich.progress import Progress

    from tests import tiny
    from tests.training import samples
    from tests.training.test_resume import ADAM, JOB, scripted_run
    from vilasr_jax.cli import main as vilasr
    from vilasr_jax.config import MeshSection
    from vilasr_jax.models.qwen2_5_vl import param_shardings
    from vilasr_jax.parallel import make_mesh, place
    from vilasr_jax.tasks.sources import MappedSource, TraceSource
    from vilasr_jax.training.sft import train_sft
    from vilasr_jax.training.stage import Stage

    second = jax.process_index() == 1

    def sft(name: str, *words: str) -> None:
        vilasr(["vilasr", "sft", *CONFIG, f"--workdir={folder / name}", *words])

    def broken_disk(number: int):
        if second and number == 11:
            raise OSError(errno.EIO, "the disk is broken")
        return samples.example(number)

    def train() -> None:
        mesh = make_mesh(MeshSection())
        run = scripted_run(JOB, folder / "run", mesh)
        params = place(tiny.params(), param_shardings(tiny.params(), mesh))
        data = run.batching.batches([MappedSource(range(23), broken_disk)], [1], seed=3, batch=4)
        stage = Stage(folder / "run" / "sft", 9, 0, "sft")
        train_sft(run, stage, params, data, ADAM, Progress(disable=True))

    def unreadable(self, index: int):
        raise OSError(errno.EIO, "not on this host")

    small = ("--config.buckets.images=1", "--config.cold_start.traces=20")
    endings = {"no example fits": ending(lambda: sft("small", *small))}
    with mock.patch.object(TraceSource, "__getitem__", unreadable) if second else mock.MagicMock():
        endings["one host can't read"] = ending(lambda: sft("unreadable"))
    endings["one host has no batch"] = ending(train)
    (folder / f"{jax.process_index()}.json").write_text(json.dumps(endings))


if __name__ == "__main__":
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_num_cpu_devices", 1)
    main(Path(sys.argv[1]))
