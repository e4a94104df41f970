"""The benchmarks' own arithmetic, and that they run at small size."""

import json

import pytest

from vilasr_jax.bench import soft
from vilasr_jax.bench.convert import bench_convert
from vilasr_jax.bench.learn import difference, pooled
from vilasr_jax.config import JobConfig
from vilasr_jax.evaluation.intervals import wilson_interval


def scored(folder, right, n):
    """A scored evaluation folder whose first `right` of `n` answers are right."""
    folder.mkdir(parents=True)
    figures = {"drawings": 3.0, "drew": 1.0, "corrected": 0.1, "errors": 0.0, "format": 1.0}
    scores = {"accuracy": right / n, "ci95": list(wilson_interval(right, n)), "n": n, **figures}
    (folder / "scores.json").write_text(json.dumps(scores))
    lines = [json.dumps({"id": f"row-{i}", "correct": i < right}) for i in range(n)]
    (folder / "results.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_pooled_means_over_seeds_widen_with_their_spread(tmp_path):
    near = pooled({"rl": [scored(tmp_path / f"near{i}", 80, 100) for i in range(3)]})["stages"]["rl"]
    far = pooled({"rl": [scored(tmp_path / f"far{i}", k, 100) for i, k in enumerate((60, 80, 100))]})
    far = far["stages"]["rl"]
    assert [near["accuracy"], far["accuracy"]] == pytest.approx([0.8, 0.8])
    assert near["n"] == far["n"] == 300 and far["by_seed"] == [0.6, 0.8, 1.0]
    assert far["ci95"][1] - far["ci95"][0] > 2 * (near["ci95"][1] - near["ci95"][0])


def test_difference_is_paired_on_the_same_rows(tmp_path):
    before, after = scored(tmp_path / "before", 50, 97), scored(tmp_path / "after", 60, 97)
    found = difference([before], [after])
    assert found["mean"] == pytest.approx(10 / 97)
    assert 0 < found["ci95"][0] < found["mean"] < found["ci95"][1]
    assert difference([before], [before])["mean"] == 0


def test_conversion_is_timed_next_to_a_copy(tmp_path, capsys):
    result = bench_convert("tiny", tmp_path)
    assert "Orbax -> safetensors" in capsys.readouterr().out
    assert result["bytes"] > 500_000 and result["in_peak_bytes"] > 0 and result["out_seconds"] > 0
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


def test_soft_reuses_the_seeing_phase_and_compares_both_arms(tmp_path, capsys, monkeypatch):
    """Training and evaluation replaced: what is left is who starts from what, and the table."""
    ran = []

    def train(job, home):
        stage = home / "cold_start"
        ran.append((job.seed, job.soft_drawing.weight, (stage / "perception" / "seen").exists()))
        (stage / "perception").mkdir(parents=True, exist_ok=True)
        (stage / "perception" / "seen").touch()
        (home / "tokenizer").mkdir(exist_ok=True)
        lines = [json.dumps({"step": step, "cpu_seconds": 2.0 * step}) for step in (10, 20)]
        (stage / "metrics.jsonl").write_text("\n".join(lines))

    def run(job, home, name):
        if not (home / "eval" / name).exists():
            train(job, home)
            scored(home / "eval" / name, 60 if name == "soft" else 50, 100)
        return home / "eval" / name

    monkeypatch.setattr(soft, "run_arm", run)
    for _ in range(2):  # the second time nothing is left to do
        table = soft.bench_soft(JobConfig(), tmp_path, [0, 3])
    assert ran == [(0, 0.0, False), (0, 0.5, True), (3, 0.0, False), (3, 0.5, True)]
    assert table["soft_over_plain"]["mean"] == pytest.approx(0.1)
    assert table["step_cpu_seconds"] == {"plain": 2.0, "soft": 2.0}
    assert json.loads((tmp_path / "soft.json").read_text()) == table
    assert "soft over plain: +10.0%" in capsys.readouterr().out
