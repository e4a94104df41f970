"""The command line on bad input: one clear line, exit code 2, nothing overwritten."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vilasr_jax import __version__, cli
from vilasr_jax.checkpoint import CheckpointStore
from vilasr_jax.commands import COMMANDS, find_command
from vilasr_jax.config import JobConfig, config_keys, flatten, from_config_dict, to_dict
from vilasr_jax.errors import ConfigError
from vilasr_jax.workdir import open_workdir

ROOT = Path(__file__).parent.parent
CONFIG = "--config=configs/maze_tiny.py"


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command in this process; returns its exit code, and standard output and error."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(cli.flags, "use_devices", lambda job: None)  # they are chosen already

    def call(*words):
        with pytest.raises(SystemExit) as stop:
            cli.main(["vilasr", *map(str, words)])
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return call


def refused(result, *parts):
    code, out, err = result
    assert code == 2, (code, err)
    assert err.startswith("vilasr: ") and err.count("\n") == 1 and "Traceback" not in err, err
    for part in parts:
        assert part in err, err
    assert not out.strip()
    return err


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_help(run):
    assert run("help")[0] == 0 and "vilasr train" in run("--help")[1]
    code, out, _ = run("train", "--help")
    assert code == 0 and out.startswith("vilasr train --config=FILE") and "--workdir" in out
    code, out, _ = run("data", "--help")
    assert code == 0 and all(f"vilasr data {name} " in out for name in ("make", "show", "import"))
    code, out, _ = run()
    assert code == 2 and "COMMAND" in out


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["trian"], ["'trian'", "did you mean train?"]),
        (["train", "--confg=x"], ["vilasr train has no flag --confg; did you mean --config?"]),
        (
            ["train", CONFIG, "--workdir=W", "--lr=1"],
            ["no flag --lr", "keys of the config are --config.KEY=VALUE"],
        ),
        (
            ["train", CONFIG, "--workdir=W", "--config.rl.steps=many"],
            ["vilasr: --config.rl.steps=many must be an integer\n"],
        ),
        (
            ["train", CONFIG, "--workdir=W", "--config.rl.recovery=half"],
            ["vilasr: --config.rl.recovery=half must be a number\n"],
        ),
        (["train", "--config=maze_tinny", "--workdir=W"], ["maze_tinny", "did you mean maze_tiny?"]),
        (["train", CONFIG, "--workdir=W", "--config.rl.stpes=1"], ["did you mean config.rl.steps?"]),
        (["train", CONFIG, "--workdir=W", "--config.rll.steps=1"], ["did you mean config.rl.steps?"]),
        (["train", CONFIG, "--workdir=W", "--config.rl=1"], ["--config.rl is a section"]),
        (["train", CONFIG, "--workdir=/proc/no/run"], ["--workdir=/proc/no/run: can't be written"]),
        (["train", CONFIG, f"--workdir={__file__}/run"], ["can't be written: Not a directory"]),
        (["config", CONFIG, "--json=/proc/no/c.json"], ["--json=/proc/no/c.json: can't be written"]),
        (["train"], ["--config"]),
        (["train", CONFIG], ["--workdir"]),
        (["train", CONFIG, "--workdir=W", "extra"], ["extra"]),
        (["train", "--config=configs/nothing.py", "--workdir=W"], ["configs/nothing.py"]),
        (["train", "--config=configs/nothing.py:v5e-64", "--workdir=W"], ["configs/nothing.py", "no such"]),
        (["train", "--config=configs/vilasr.py:7b,v5e-7", "--workdir=W"], ["v5e-7"]),
        (
            ["train", "--config=configs/vilasr.py:7b,v5e-64,cold_start", "--workdir=W"],
            ["config.mesh", "fsdp=32, model=2"],
        ),
        (["sft", "--config=configs/sft_7b.py:v5e-64"], ["--config=configs/vilasr.py:7b,v5e-64,cold_start"]),
        (["train", CONFIG, "--workdir=W", "--nothing=1"], ["nothing"]),
        (["train", CONFIG, "--workdir=W", "--sweep"], ["--sweep isn't a flag of vilasr train", "plan"]),
        (["train", CONFIG, "--workdir=W", "--nosweep"], ["--nosweep isn't a flag of vilasr train", "plan"]),
        (["solve", "a.png", "--config.rl.steps=1"], ["--config.rl.steps isn't a flag of vilasr solve"]),
        (["serve", "W", "--slots=0"], ["--slots=0"]),
        (["plan", CONFIG], ["--topology"]),
        (["train", "--config=maze_tiny:7b", "--workdir=W"], ["maze_tiny.py:7b: this file has no words"]),
        (["train", "--config=vilasr:7b", "--workdir=W"], ["vilasr:7b: which slice?", "vilasr:7b,v5e-64;"]),
        (["train", "--config=vilasr:7b,v5", "--workdir=W"], ["7b,v5: no layout", "vilasr:7b,v5e-64;"]),
        (["train", "--config=vilasr:9b,v5e-64", "--workdir=W"], ["no size '9b'", "qwen3vl_8b"]),
        (
            ["train", CONFIG, "--workdir=W", "--config.cold_start.slip_share=0.1"],
            ["--config.cold_start.slip_share", "it is now --config.cold_start.slip_fraction"],
        ),
        (["train", CONFIG, "--workdir=W", "--config.rl.stepz=1"], ["stepz"]),
        (["train", CONFIG, "--workdir=W", "--config.rl.steps=many"], ["steps", "many"]),
        (["train", CONFIG, "--workdir=W", "--config.rl.steps=0"], ["config.rl.steps"]),
        (["train", CONFIG, "--workdir=W", "--config.mesh.data=3"], ["config.mesh", "data=3"]),
        (["train", CONFIG, "--workdir=W", "--config.mesh.fsdp=0"], ["config.mesh", "fsdp=0"]),
        (["train", CONFIG, "--workdir=W", "--config.rl.sampling.max_tokens=9999"], ["max_tokens=9999"]),
        (["train", CONFIG, "--workdir=W", "--config.rl.sampling.top_p=0.9"], ["rl.sampling", "top_p=0.9"]),
        (["train", CONFIG, "--workdir=W", "--config.rl.sampling.top_k=5"], ["rl.sampling", "top_k=5"]),
        (["train", CONFIG, "--workdir=W", "--config.rl.sampling.temperature=0.0"], ["temperature=0"]),
        (
            ["train", CONFIG, "--workdir=W", "--config.engine.per_request_sampling=True"],
            ["per_request_sampling"],
        ),
        (["train", CONFIG, "--workdir=W", "--config.drawing.max_images=99"], ["max_images=99", "buckets"]),
        (["train", CONFIG, "--workdir=W", "--config.rl.recovery=0.5"], ["rl.recovery=0.5", "ends at 96"]),
        (["train", CONFIG, "--workdir=W", "--config.cold_start.batch=3"], ["cold_start.batch=3"]),
        (["train", CONFIG, "--workdir=W", "--config.model.preset=huge"], ["huge"]),
        (
            ["config", CONFIG, "--config.model.preset=qwen3vl_9b"],
            ["model.preset", "qwen3vl_9b", "qwen3vl_8b"],
        ),
        (["train", CONFIG, "--workdir=W", "--config.maze.grid=2"], ["grid is 2"]),
        (["train", CONFIG, "--workdir=W", "--config.drawing.style=odd"], ["odd"]),
        (["train", CONFIG, "--workdir=W", "--config.cold_start.format=poem"], ["poem"]),
        (["train", CONFIG, "--workdir=W", "--config.rl.optimizer.name=lion"], ["lion"]),
        (["train", CONFIG, "--workdir=W", "--config.model.init_from=none"], ["none"]),
        (["eval", CONFIG, "--workdir=W"], ["W"]),
        (["eval", "--answers=missing.jsonl"], ["missing.jsonl", "can't be read"]),
        (["synthesize", CONFIG, "--workdir=W"], ["W", "holds no run yet"]),
        (["train", CONFIG, "--workdir=W", "--config.synthesis.rule=best"], ["synthesis.rule", "best"]),
        (["train", CONFIG, "--workdir=W", "--config.eval.samples=0"], ["eval.samples"]),
        (["train", CONFIG, "--workdir=W", "--config.data.traces=('none',)"], ["none", "data import"]),
        (["train", CONFIG, "--workdir=W", "--config.tasks=()"], ["config.tasks"]),
        (["rl", CONFIG, "--workdir=W"], ["reflect"]),
        (["reflect", CONFIG, "--workdir=W"], ["cold_start", "sft"]),
        (["report", "W"], ["W"]),
        (["report"], ["give the folder of a run: vilasr report WORKDIR"]),
        (["solve", "a.png"], ["usage"]),
        (["convert", "sideways", "a", "b"], ["usage"]),
        (["convert", "from-hf", "missing", "W"], ["missing"]),
        (["bench", "nothing"], ["usage"]),
        (["data"], ["usage", "import"]),
        (["data", "import", "rl", "missing"], ["usage"]),
        (["data", "import", "coco", "missing", "W"], ["'coco'", "vsi_bench"]),
        (["data", "import", "rl", "missing", "W"], ["missing", "no such"]),
        (["bench", "learn", CONFIG, "--workdir=W", "--seeds=0,x"], ["seeds"]),
    ],
    ids=lambda value: " ".join(value[:1] + value[3:]) if isinstance(value, list) else "",
)
def test_bad_words(run, tmp_path, words, parts):
    words = [word.replace("=W", f"={tmp_path / 'W'}") if word != "W" else tmp_path / "W" for word in words]
    refused(run(*words), *parts)
    assert not (tmp_path / "W").exists()


@pytest.mark.parametrize("words", [["rollout"], ["rollout", "--scale"], ["sft"], ["convert"]], ids="-".join)
def test_a_bench_without_its_devices_is_one_line(run, monkeypatch, words):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr("vilasr_jax.parallel.devices._CUDA", ())
    monkeypatch.setattr("jax.config.update", lambda *_: None)
    refused(run("bench", *words), "JAX_PLATFORMS=cuda finds no device")


def test_a_config_file_that_fails(run, tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("def get_config():\n    return 1 / 0\n")
    refused(run("train", f"--config={bad}", f"--workdir={tmp_path / 'W'}"), "division")
    bad.write_text("import ml_collections as m\n\ndef get_config():\n    return m.ConfigDict({'a': 1})\n")
    refused(run("train", f"--config={bad}", f"--workdir={tmp_path / 'W'}"), "config.a", "no such key")


def test_a_workdir_of_another_config(run, tmp_path):
    from configs.maze_tiny import get_config

    open_workdir(from_config_dict(get_config()), tmp_path)
    before = files(tmp_path)
    refused(
        run("train", CONFIG, f"--workdir={tmp_path}", "--config.seed=7", "--config.maze.grid=6"),
        "another config",
        "seed: 0 there, 7 now",
        "maze.grid",
        "--workdir",
    )
    assert files(tmp_path) == before


def test_a_workdir_goes_on_with_another_layout(tmp_path):
    from configs.maze_tiny import get_config

    config = get_config()
    open_workdir(from_config_dict(config), tmp_path)
    config.engine.slots, config.engine.prompt_tokens = 8, (96, 192)
    config.mesh.model, config.model.remat, config.cold_start.accumulate = 2, "attention", 4
    open_workdir(from_config_dict(config), tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "old"}'])
def test_a_workdir_with_a_strange_config(run, tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    refused(run("train", CONFIG, f"--workdir={tmp_path}"), str(tmp_path))
    assert files(tmp_path) == {"config.json": text.encode()}


def test_a_workdir_that_is_a_file(run, tmp_path):
    (tmp_path / "W").write_text("mine")
    refused(run("train", CONFIG, f"--workdir={tmp_path / 'W'}"), "is a file")
    refused(run("report", tmp_path / "W"), "a folder of a run", "it is a file")
    assert (tmp_path / "W").read_text() == "mine"


@pytest.mark.parametrize("words", [["report"], ["watch"], ["report", "run", "--compare"]], ids="-".join)
def test_a_report_of_a_folder_that_is_no_run(run, tmp_path, words):
    def refuse(folder, *parts):
        *first, last = [tmp_path / "run" if word == "run" else word for word in words]
        compared = last == "--compare"
        refused(run(*first, f"--compare={folder}") if compared else run(*first, last, folder), *parts)
        assert not list(tmp_path.rglob("*.html"))

    (tmp_path / "run" / "hf").mkdir(parents=True)
    (tmp_path / "photos").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(to_dict(JobConfig())))
    (tmp_path / "run" / "hf" / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    refuse(tmp_path / "none", "none isn't a folder of a run: there is no such folder")
    refuse(tmp_path / "photos", "photos isn't a folder of a run: no run has begun in it")
    refuse(tmp_path / "run" / "hf", f"it is in one; give {tmp_path.resolve() / 'run'}")


def test_a_checkpoint_of_another_shape(run, tmp_path):
    from configs.maze_tiny import get_config

    job = from_config_dict(get_config())
    open_workdir(job, tmp_path)
    with CheckpointStore(tmp_path / "cold_start" / "checkpoints") as store:
        odd = {"language_model": {"embed_tokens": {"embedding": np.zeros((7, 3), np.float32)}}}
        store.save(job.cold_start.steps, {"params": odd}, wait=True)
    before = files(tmp_path)
    code, out, err = run("reflect", CONFIG, f"--workdir={tmp_path}")
    *account, last = err.splitlines(keepends=True)  # memory is shown before anything is allocated
    assert account and all(line.startswith("reflect, ") for line in account)
    for line in account:
        assert " MiB of " in line and " GiB on each device (8 CPU devices use this machine's " in line
    refused((code, out, last), "cold_start", "another model")
    after = files(tmp_path)
    assert {name: after[name] for name in before} == before and not (tmp_path / "reflect").exists()


def test_stages_may_differ(tmp_path):
    open_workdir(JobConfig(), tmp_path)
    open_workdir(JobConfig(stages=("rl",)), tmp_path)
    with pytest.raises(ConfigError, match="seed"):
        open_workdir(JobConfig(seed=1), tmp_path)
    assert from_config_dict(json.loads((tmp_path / "config.json").read_text())) == JobConfig()


LISTS = [key for key, value in config_keys().items() if isinstance(value, tuple)]


@pytest.mark.parametrize("key", LISTS)
def test_a_list_given_as_words_is_refused_with_its_form(run, tmp_path, key):
    words = ["train", CONFIG, f"--workdir={tmp_path / 'W'}"]
    for text, right in (("rl", "('rl',)"), ("(rl, 'b c'", "('rl', 'b c')"), ("8, x", "(8, 'x')"), ("", "()")):
        for flag in ([f"--config.{key}={text}"], [f"--config.{key}", text]):
            refused(run(*words, *flag), f"--config.{key}={text}: a list", f'--config.{key}="{right}"')
    assert not (tmp_path / "W").exists()


def test_config_values_are_read_strictly():
    values = json.loads(json.dumps(to_dict(JobConfig())))
    for path, value, message in [
        (("rl", "steps"), 1.5, "config.rl.steps: expected int"),
        (("rl", "steps"), True, "config.rl.steps: expected int"),
        (("rl", "clip_low"), "0.2", "config.rl.clip_low: expected float"),
        (("stages",), "rl", "config.stages: expected a list"),
        (("buckets", "tokens"), [1, "2"], r"config.buckets.tokens\[1\]: expected int"),
        (("engine",), 3, "config.engine: expected keys and values"),
    ]:
        wrong = json.loads(json.dumps(values))
        node = wrong
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value
        with pytest.raises(ConfigError, match=message):
            from_config_dict(wrong)


def test_solve_with_bad_files(run, tmp_path):
    picture = tmp_path / "picture.png"
    picture.write_text("no picture")
    flags = ["--question=where?", f"--checkpoint={tmp_path}", f"--out={tmp_path / 'out'}"]
    refused(run("solve", picture, *flags), "picture.png")
    refused(run("solve", tmp_path / "none.png", *flags), "none.png")
    from PIL import Image

    Image.new("RGB", (56, 56)).save(picture)
    refused(run("solve", picture, *flags), str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    refused(run("solve", picture, *flags), str(tmp_path))
    (tmp_path / "tokenizer").mkdir()
    refused(run("solve", picture, *flags), str(tmp_path))
    assert not (tmp_path / "out").exists()


def test_data_import(run, tmp_path):
    source, out = "tests/tasks/published/ViLaSR-eval", tmp_path / "rows"
    code, printed, _ = run("data", "import", "vsi_bench", source, out, f"--json={tmp_path / 'index.json'}")
    assert code == 0 and f"2 rows with 32 images are in {out}" in printed
    assert json.loads((tmp_path / "index.json").read_text())["rows"] == 2
    broken = tmp_path / "broken" / "rl.jsonl"
    broken.parent.mkdir()
    row = {
        "question": "?",
        "answer": "A",
        "image_path": ["p.png"],
        "question_type": "free-form",
        "data_type": "vqa",
    }
    broken.write_text("\n".join([json.dumps(row), "{"]))
    code, _, err = run("data", "import", "rl", broken, tmp_path / "none")
    assert code == 2 and "p.png is missing" in err and "rl.jsonl:1" in err
    from PIL import Image

    Image.new("RGB", (56, 56)).save(broken.parent / "p.png")
    code, printed, _ = run("data", "import", "rl", broken, tmp_path / "some")
    assert code == 0 and f"{broken}:2: isn't valid JSON" in printed and "1 rows were left out" in printed


def test_eval_answers(run, tmp_path):
    def written(name, said):
        lines = [
            {
                "question": str(n),
                "problem_type": "multiple choice",
                "answer": "A",
                "image_path": [],
                "original_question_type": "MSR",
                "model_output": f"<answer>{text}</answer>",
            }
            for n, text in enumerate(said)
        ]
        (tmp_path / name).write_text("\n".join(map(json.dumps, lines)))
        return tmp_path / name

    one, two = written("one.jsonl", "AABB"), written("two.jsonl", "AAAB")
    code, out, _ = run("eval", f"--answers={one}", "--benchmark=mmsi_bench", f"--json={tmp_path / 's.json'}")
    assert code == 0 and "MSR" in out and "50.0" in out
    assert json.loads((tmp_path / "s.json").read_text())[str(one)]["overall"]["mean"] == 0.5
    code, out, _ = run("eval", f"--answers={one},{two}", f"--json={tmp_path / 's.json'}")
    compared = json.loads((tmp_path / "s.json").read_text())["comparison"]
    assert code == 0 and compared["n"] == 4 and compared["rows"][-1]["means"] == [0.5, 0.75]
    assert "+25.0" in out


def test_in_a_process_of_its_own(tmp_path):
    """The exit code of the real command; no model is loaded."""
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    words = ["train", CONFIG, f"--workdir={tmp_path / 'W'}", "--config.nothing=1"]
    done = subprocess.run(
        [sys.executable, "-m", "vilasr_jax.cli", *words], cwd=ROOT, env=env, capture_output=True, text=True
    )
    refused((done.returncode, done.stdout, done.stderr), "nothing")
    assert not (tmp_path / "W").exists()


def test_config_prints_what_would_run_and_the_defaults(run, tmp_path):
    code, out, _ = run("config", CONFIG, "--config.rl.steps=7", f"--json={tmp_path / 'c.json'}")
    assert code == 0
    lines = out.splitlines()
    assert "rl.steps = 7  # default: 1000" in lines and "seed = 0" in lines
    assert json.loads((tmp_path / "c.json").read_text())["rl.steps"] == {"value": 7, "default": 1000}


def test_config_help_lists_each_key_with_its_comment(run):
    code, out, _ = run("config", "--help")
    assert code == 0 and "\n  rl.clip_low = 0.2\n" in out
    assert "\n  cold_start.batch = 32" in out and "\n  eval.rows = " in out
    assert "\n  packing.tokens = 0  # tokens per row; 0: off, one conversation per row\n" in out
    assert "  rl.advantage = 'grpo'  # choices: grpo, dr_grpo, rloo\n" in out
    keys = [line.split(" = ")[0].strip() for line in out.splitlines() if " = " in line]
    assert set(keys) >= set(flatten(to_dict(JobConfig()))) - {
        f"rl.rewards.{key}" for key in JobConfig().rl.rewards
    }


def test_version_and_help_of_a_command(run):
    assert run("--version") == (0, f"vilasr {__version__}\n", "")
    assert run("help", "train") == run("train", "--help")
    assert run("help", "data") == run("data", "--help")


def test_a_reader_that_leaves_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m vilasr_jax.cli config --help | head -1",
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("vilasr config") and not done.stderr


def test_flags_are_allowed_before_and_after_words():
    found, rest = find_command(["data", "--count=3", "show", "rows", f"{CONFIG}", "--config.seed", "4"])
    words, flags = found.parse(rest)
    assert (found.name, words, flags.count, flags.config.seed) == ("data show", ["rows"], 3, 4)
    found, rest = find_command(["plan", CONFIG, "--topology", "v5e-8", "--nosweep", "--steps=sft,vision"])
    words, flags = found.parse(rest)
    assert (words, flags.sweep, flags.steps) == ([], False, ["sft", "vision"])
    words, flags = COMMANDS["serve"].parse(["--allow-host", "a,b", "runs/x", "--port=0"])
    assert (words, flags["allow-host"].value, flags.port) == (["runs/x"], ["a", "b"], 0)
    words, flags = COMMANDS["solve"].parse(["a.png", "-Q", "where?", "b.png", "--checkpoint=c"])
    assert (words, flags.question, flags.options) == (["a.png", "b.png"], "where?", [])
