"""`vilasr plan --job` from saved plans: nothing is compiled here."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from tests.training import samples
from vilasr_jax import cli
from vilasr_jax.config import read_config
from vilasr_jax.errors import ConfigError, DataError
from vilasr_jax.files import write_records
from vilasr_jax.parallel import hosts as parallel_hosts
from vilasr_jax.plan.run import with_keys
from vilasr_jax.plan.simulation import Workload, simulate_job
from vilasr_jax.plan.simulation.host_costs import MEASURED, HostCosts, known_costs
from vilasr_jax.plan.simulation.lengths import Lengths, Turn, drawn_lengths, lengths_of, recorded_lengths
from vilasr_jax.plan.simulation.rows import gradient_calls, supervised_rows
from vilasr_jax.plan.simulation.step_times import RolloutCalls, StepTimes
from vilasr_jax.plan.simulation.traffic import gathered_bytes, saving_seconds
from vilasr_jax.processing import Budget
from vilasr_jax.rollout import Request
from vilasr_jax.tasks.packed import PackedBatches

ROOT = Path(__file__).parents[2]
COSTS = {"draw_ms": 5, "decode_ms": 10, "patch_ms": 5, "encode_ms": 1, "row_ms": 1, "save_gbs": 0.1}
WORDS = ",".join(f"{name}={value}" for name, value in COSTS.items())


def saved(words):
    plan = json.loads((ROOT / f"launch/plans/{words.replace(',', '_')}.json").read_text())
    return read_config(f"configs/vilasr.py:{words}"), plan


FEW = {"rl.prompts": 16, "rl.group": 4}  # conversations: a question a host


@pytest.fixture(scope="module")
def rl():
    job, plan = saved("7b,v5e-64,rl")
    return with_keys(job, FEW), plan


@pytest.fixture(scope="module")
def simulated(rl):
    return simulate_job(*rl, Workload(), COSTS, price=2.0)


def plan_job(monkeypatch, capsys, *words, stage="rl"):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(cli.flags, "use_devices", lambda job: None)
    common = [f"--config=configs/vilasr.py:7b,v5e-64,{stage}", "--topology=v5e-64", "--job"]
    common += [f"--config.{key}={value}" for key, value in FEW.items()]
    with pytest.raises(SystemExit) as stop:
        cli.main(["vilasr", "plan", *common, f"--saved=launch/plans/7b_v5e-64_{stage}.json", *words])
    out, err = capsys.readouterr()
    return stop.value.code, out, err


def test_the_parts_are_the_step(simulated):
    for end in ("best", "worst"):
        figures = simulated["rl"][end]
        assert sum(figures["parts"].values()) == pytest.approx(figures["seconds"])
        assert min(figures["parts"].values()) >= 0
        assert figures["waiting"] * figures["seconds"] == pytest.approx(
            figures["parts"]["waiting for the slowest"]
        )
        sampling = sum(list(figures["parts"].values())[:5])
        assert sampling == pytest.approx(figures["sampling_seconds"])
        assert 0 < figures["useful_mfu"] < figures["useful_mfu_of_gradients"] < 1
    assert simulated["rl"]["best"]["seconds"] <= simulated["rl"]["worst"]["seconds"]
    assert simulated["rl"]["best"]["conversations"] == 64 and simulated["hosts"] == 16


def test_the_command_prints_and_saves_the_same(monkeypatch, capsys, tmp_path, simulated):
    code, out, err = plan_job(
        monkeypatch, capsys, f"--host_costs={WORDS}", "--chip_hour=2", f"--json={tmp_path}/job.json",
        "--conversations=questions=40000",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads((tmp_path / "job.json").read_text())["job"]
    assert found["rl"]["best"]["parts"] == simulated["rl"]["best"]["parts"]  # the same seed, the same figures
    assert found["rl"]["best"]["steps"] == 2500
    hours = 2500 * found["rl"]["best"]["seconds"] / 3600
    assert found["rl"]["best"]["cost"] == pytest.approx(hours * 64 * 2)
    assert (
        "SIMULATED" in out and "UNCALIBRATED" in out and f"{hours:.2f}" in out and "draw_ms 5 (given)" in out
    )
    # what was saved is a plan, too
    again = plan_job(monkeypatch, capsys, f"--saved={tmp_path}/job.json", f"--host_costs={WORDS}")
    assert again[0] == 0 and "No cost" in again[1]


def test_an_epoch_has_the_steps_of_its_rows(monkeypatch, capsys):
    job, plan = saved("7b,v5e-64,cold_start")
    found = simulate_job(job, plan, Workload(rows=6401), COSTS)["sft"]
    for end in ("best", "worst"):
        figures = found[end]
        assert figures["steps"] == 201 and sum(figures["parts"].values()) == pytest.approx(figures["seconds"])
        assert figures["seconds"] == pytest.approx(201 * figures["seconds_a_step"])
    # the compiled batch is 32 rows with 48 vision rows each; these have fewer vision rows
    compiled = plan["steps"][0]["seconds"]
    assert 0.8 * compiled["best"] < found["best"]["seconds_a_step"] < compiled["best"]
    # of a slow host the devices wait
    slow = simulate_job(job, plan, Workload(rows=6401), {**COSTS, "decode_ms": 900})["sft"]["best"]
    assert slow["parts"]["building rows"] > 0 and slow["seconds"] > found["best"]["seconds"]
    traces = simulate_job(job, plan, Workload(traces=33000), COSTS)["sft"]["best"]
    assert traces["rows"] == pytest.approx(33000 / traces["conversations_a_row"], abs=1)


def test_slower_steps_and_equal_lengths_are_seen(rl, simulated):
    job, plan = rl
    equal = simulate_job(job, plan, Workload(spread=0), COSTS)["rl"]["best"]
    assert equal["waiting"] == 0 and equal["sampled"] == 64 * 1000 and equal["tokens"] == 64 * 4096
    slower = json.loads(json.dumps(plan))
    decode = next(step for step in slower["steps"] if step["step"] == "decode")
    decode["seconds"]["best"] *= 2
    twice = simulate_job(job, slower, Workload(spread=0), COSTS)["rl"]["best"]
    assert twice["parts"]["decode"] == pytest.approx(2 * equal["parts"]["decode"])
    assert twice["parts"]["gradients"] == equal["parts"]["gradients"]


def test_calls_scale_with_their_flops(rl):
    job, plan = rl
    best, worst = (StepTimes(plan, job, end) for end in ("best", "worst"))
    for name, answer in best.answers.items():
        assert best.seconds(name) == pytest.approx(answer["seconds"]["best"])
        assert worst.seconds(name) == pytest.approx(answer["seconds"]["worst"])
    full, half = (best.seconds("grpo_grad", part, same_exchanges=True) for part in (1.0, 0.5))
    exchanged = best.answers["grpo_grad"]["synchronous_bytes"] / 90e9  # two links of 45 GB/s
    assert half == pytest.approx((full - exchanged) / 2 + exchanged)
    calls = RolloutCalls(best, 1024)
    assert calls.prefill(4, 5120, 64) == pytest.approx(1.7)
    assert calls.insert(4, 768, 4) == pytest.approx(0.351)
    assert calls.insert(1, 384, 1) < 0.351 / 7
    assert calls.insert(1, 1, 0) == pytest.approx(4464762368 / 819e9)  # weights are read once


def test_calls_hold_every_conversation_once(rl):
    job, plan = rl
    spec = StepTimes(plan, job, "best").family.images
    workload = Workload().for_job(job, StepTimes(plan, job, "best").family)
    found = list(enumerate(drawn_lengths(workload, job, 128, seed=1)))
    calls = gradient_calls(job, spec, found, 256, 16)
    numbers = [n for call in calls for part in call.examples for n in part]
    assert sorted(numbers) == list(range(128))
    tokens = sum(lengths.tokens for _, lengths in found)
    room = sum(call.tokens * job.rl.micro_batch for call in calls)
    assert tokens <= room and len(calls) <= -(-tokens // (18432 * 16)) + 1
    assert all(len(call.examples) == 16 for call in calls)


def test_rows_are_packed_as_in_training():
    budget = Budget(160, 40, tiny.PATCHES[-1])
    batches = PackedBatches([samples.example(n) for n in range(400)], budget, 1, lookahead=5)
    given = [samples.example(n) for n in range(200)]
    patches = {rows * columns for one in given for _, rows, columns in one.grids}
    lengths = [Lengths(len(one.ids), len(one.grids), ()) for one in given]
    job = with_keys(
        read_config("configs/maze_tiny.py"),
        {"packing.tokens": 160, "packing.vision_rows": 40, "packing.patches": budget.patches},
    )
    job = with_keys(job, {"packing.lookahead": 5})
    fill = supervised_rows(job, budget.spec, lengths, max(patches) // budget.spec.merge_unit)
    real = [int(next(batches).segment_ids.max()) for _ in range(60)]
    assert fill.conversations == pytest.approx(np.mean(real), rel=0.03)


def test_conversations_longer_than_a_row_are_left_out():
    job = with_keys(read_config("configs/maze_tiny.py"), {"packing.tokens": 160, "packing.vision_rows": 4})
    short, long = Lengths(100, 1, ()), Lengths(161, 1, ())
    fill = supervised_rows(job, Budget(160, 4, 64).spec, [short, long, short], 16)
    assert (fill.conversations, fill.tokens) == (1, 100)
    with pytest.raises(ConfigError, match="none fits a row of 160 tokens"):
        supervised_rows(job, Budget(160, 4, 64).spec, [long], 16)


def test_one_chip_waits_for_no_other(rl):
    job, plan = rl
    job = with_keys(job, {"mesh.fsdp": 1, "mesh.model": 1, "mesh.context_parallel": False})
    steps = [{**step, "mesh": {"data": 1, "fsdp": 1, "model": 1}} for step in plan["steps"]]
    times = StepTimes({**plan, "topology": "v5e-1", "steps": steps}, job, "worst")
    assert times.exchange(1e9) == 0 and times.seconds("decode") > 0


def test_a_plan_of_another_size_is_refused(rl):
    job, plan = rl
    with pytest.raises(ConfigError, match="the plan is of 'qwen3vl_8b', and --config of '7b'"):
        StepTimes({**plan, "preset": "qwen3vl_8b"}, job, "best")


def test_gathers_are_as_large_as_those_of_a_run(monkeypatch):
    given = []
    monkeypatch.setattr(parallel_hosts, "alone", lambda: False)
    for size in (3, 1016, 1017, 70_000):
        given.clear()
        monkeypatch.setattr(parallel_hosts, "_all_gather", lambda row: given.append(row.size) or [row, row])
        parallel_hosts.gather_bytes(bytes(size))
        assert gathered_bytes([size, 2]) == sum(given)


def test_what_travels_is_some_kilobytes_a_conversation(simulated):
    sent = simulated["rl"]["best"]["network"]["sent"]
    assert 4 * 5_000 < sent < 4 * 100_000  # 4 conversations a host; a picture alone has 600,000 bytes
    assert simulated["rl"]["best"]["network"]["received"] == 16 * sent


def test_checkpoints_cost_their_copy_and_a_wait():
    costs = HostCosts(save_gbs=0.1, copy_gbs=5)
    assert saving_seconds(10**9, costs, 2.0, 10) == pytest.approx(0.2 / 10)
    assert saving_seconds(10**9, costs, 0.5, 10) == pytest.approx((0.2 + 5) / 10)
    assert saving_seconds(10**9, costs, 0.5, 0) == 0


def test_lengths_of_sampled_conversations(tmp_path, rl):
    workload = Workload().for_job(rl[0], StepTimes(rl[1], rl[0], "best").family)
    request = Request({"id": "q"}, lambda: tiny.ScriptedSession(2, turns=3), 7)
    spoken = samples.spoken(request, 0)
    found = lengths_of(spoken)
    assert found.tokens == len(spoken.tokens) and found.sampled == spoken.loss_mask.sum()
    assert len(found.turns) == len(spoken.turns) and found.turns[-1].reply == 0
    assert found.images + found.drawn == spoken.images_read
    (tmp_path / "reflect/samples").mkdir(parents=True)
    write_records(tmp_path / "reflect/samples/00000-of-00001.array_record", [spoken.to_bytes()])
    assert recorded_lengths(tmp_path, workload) == {"q": [found]}
    line = {"id": "r", "tokens": 90, "turns": [{"text": "a" * 60, "calls": [1], "error": None}]}
    line["turns"].append({"text": "a" * 30, "calls": [], "error": None})
    (tmp_path / "results.jsonl").write_text(json.dumps(line) + "\n")
    stored = recorded_lengths(tmp_path, workload)["r"][0]
    assert stored.turns == (Turn(60, workload.reply, 1), Turn(30))
    (tmp_path / "results.jsonl").write_text('{"id": 3}\n')
    with pytest.raises(DataError, match="line 1"):
        recorded_lengths(tmp_path, workload)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no sampled conversation"):
        recorded_lengths(tmp_path / "empty", workload)


def test_recorded_lengths_give_the_step(tmp_path, rl, simulated):
    turns = [{"text": "a", "calls": [1], "error": None}] * 2
    lines = [{"id": str(n), "tokens": 400, "turns": turns} for n in range(3)]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = simulate_job(*rl, Workload(), COSTS, recorded=tmp_path)["rl"]["best"]
    assert found["sampled"] == 64 * 400 and found["waiting"] == 0


def test_costs_are_measured_where_they_are_not_given(rl):
    family = StepTimes(rl[1], rl[0], "best").family
    costs, sources = known_costs({"draw_ms": 7.0}, 56, family)
    assert costs.draw_ms == 7 and sources["draw_ms"] == "given" and sources["call_ms"] == "assumed"
    assert sources["patch_ms"] == sources["save_gbs"] == MEASURED
    assert all(value > 0 for value in vars(costs).values())


@pytest.mark.parametrize(
    "words, parts",
    [
        (["--conversations=turn=5"], ["--conversations=turn=5", "turns"]),
        (["--conversations=turns=five"], ["turns must be a number"]),
        (["--conversations=tokens=nan"], ["tokens must be an integer"]),
        (["--conversations=turns=nan"], ["turns=nan must be"]),
        (["--conversations=turns=0"], ["turns=0 must be"]),
        (["--conversations=tokens=900"], ["tokens=900 leaves"]),
        (["--conversations=tokens=18000"], ["prompt_tokens=5120"]),
        (["--host_costs=draw_ms=-1"], ["draw_ms=-1"]),
        (["--host_costs=save_gbs=0"], ["save_gbs=0"]),
        (["--saved=nowhere.json"], ["--saved=nowhere.json"]),
        (["--saved=configs/vilasr.py"], ["--saved=configs/vilasr.py"]),
        (["--saved=launch/plans/7b_v6e-16_rl.json"], ["v6e-16", "--topology=v5e-64"]),
        (["--saved=launch/plans/7b_v5e-64_cold_start.json"], ["mesh"]),
        (["--config.mesh.fsdp=32", "--config.mesh.model=2"], ["mesh"]),
        (["--config.engine.slots=256"], ["decode", "engine.slots=256"]),
        (["--sweep"], ["--sweep does not go with --job"]),
        (["--nojob"], ["--saved is for --job"]),
        (["--recorded=tests"], ["--recorded=tests"]),
    ],
)
def test_mistakes_are_refused_in_one_line(monkeypatch, capsys, words, parts):
    code, _, err = plan_job(monkeypatch, capsys, *words)
    assert code == 2 and "Traceback" not in err
    for part in parts:
        assert part in err


def test_a_step_without_seconds_is_named(rl):
    job, plan = rl
    without = {**plan, "steps": [step for step in plan["steps"] if step["step"] != "insert"]}
    with pytest.raises(ConfigError, match="no seconds of the step insert"):
        simulate_job(job, without, Workload(), COSTS)
    with pytest.raises(ConfigError, match="'7b'"):
        simulate_job(dataclasses.replace(job, name="mine"), plan, Workload(), COSTS)
