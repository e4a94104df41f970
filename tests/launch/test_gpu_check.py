"""`launch/gpu_check.sh`, with a small model and without a GPU."""

import json
import sys
from pathlib import Path

import pytest

from tests.launch.test_scripts import script


def test_a_folder_is_needed(tmp_path):
    for words, says in (((), "name a folder"), ((str(tmp_path), "--sise=3b"), "no option --sise=3b")):
        done = script("gpu_check.sh", *words, VILASR="false")
        assert done.returncode == 2 and says in done.stderr


@pytest.mark.slow  # four processes
def test_all_of_it_runs_with_a_small_model(tmp_path):
    vilasr = Path(sys.executable).with_name("vilasr")
    words = (str(tmp_path), "--size=tiny", "--tokens=2048")
    done = script("gpu_check.sh", *words, VILASR=str(vilasr), JAX_PLATFORMS="cpu", timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    sampling = json.loads((tmp_path / "tiny-sampling.json").read_text())
    assert sampling["records"][0]["tokens_per_second"] > 0
    training = json.loads((tmp_path / "tiny-training.json").read_text())
    supervised, reinforced = training["records"]
    assert supervised["row"] > 1000 and supervised["flops"] > 0 and supervised["mfu"] == 0.0  # no known peak
    assert reinforced["sampled_tokens"] > 0 and reinforced["sampling_seconds"] > 0
    assert "tokens/s" in done.stdout and "Done in" in done.stdout
