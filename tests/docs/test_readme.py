"""What the documents show works as shown."""

import ast
import random
import sys

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from PIL import Image

from tests.docs import readme
from vilasr_jax import cli
from vilasr_jax.checks import check
from vilasr_jax.cli.flags import read_job
from vilasr_jax.commands import COMMANDS, find_command, listing
from vilasr_jax.config import read_config
from vilasr_jax.drawing import TOOLS, DrawingSession, DrawingSettings
from vilasr_jax.models.qwen2_5_vl import Qwen2_5_VL, preset
from vilasr_jax.parallel import make_mesh
from vilasr_jax.rewards import RewardSettings, score
from vilasr_jax.tasks import get_family
from vilasr_jax.tasks.replay import replay
from vilasr_jax.training.run import open_run

# Configs that need weights, data or a TPU slice: their commands are parsed, and their keys read.
NEED_PUBLISHED = (
    "configs/vilasr.py",
    "configs/eval_published.py",
    "configs/lora_7b.py",
    "configs/sft_3b_gpu.py",
    "pictures_tiny",
)


@pytest.fixture(scope="module")
def plugins(tmp_path_factory):
    """The documents' files, in a folder that Python looks into."""
    folder = tmp_path_factory.mktemp("plugins")
    for name, text in readme.modules().items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(text)
    (folder / "configs").symlink_to(readme.ROOT / "configs")
    sys.path.insert(0, str(folder))
    known = set(TOOLS)
    yield folder
    sys.path.remove(str(folder))
    for name in TOOLS.keys() - known:  # other tests count the tools
        del TOOLS[name]


def test_a_reward_of_ones_own(plugins, monkeypatch):
    monkeypatch.chdir(plugins)
    job = read_config("mine/few_turns.py")
    assert job.rl.rewards["few_turns"] == 0.2 and job.rl.rewards["accuracy"] == 0.5
    text = "<think> so </think> Action: Answer\n<answer>B</answer>"
    parts = score([text], answer="B", settings=RewardSettings(extra=(("few_turns", 0.2),)))
    assert parts["few_turns"] == 1 and parts["total"] == 1.2


def test_a_tool_of_ones_own(plugins):
    settings = DrawingSettings(tools=("path_tracer", "mine.ruler"))
    session = DrawingSession([Image.new("RGB", (112, 112), "white")], "How far?", settings=settings)
    assert "Ruler: measures distances" in session.messages[0]["content"][0]["text"]
    items = '[{"index": 1, "from_2d": [10, 20], "to_2d": [90, 20], "label": "width"}]'
    reply = session.step(f"<think> a </think> Action: Ruler\n```json\n{items}\n```")
    assert reply.drawn == 1 and reply.error is None and session.images[1] != session.images[0]
    assert session.events[0]["calls"][0]["tool"] == "ruler" and session.events[0]["strict_format"]
    reply = session.step('<think> a </think> Action: Ruler\n```json\n[{"index": 1, "label": "b"}]\n```')
    assert reply.drawn == 0 and reply.error


def test_a_task_of_ones_own(plugins):
    family = get_family("mine.dots")
    rows = list(family.rows(family.spec(None, "train"), 8))
    assert not {row.meta["hash"] for row in rows} & {
        row.meta["hash"] for row in family.rows(family.spec(None, "test"), 8)
    }
    for row in rows:
        trace = family.expert_trace(row, random.Random(0))
        session = row.session(DrawingSettings())
        for text in trace.turns:
            session.step(text)
        parts = score(trace.turns, session.events, answer=row.answer, question_type=row.question_type)
        assert session.answer == row.answer and parts["total"] == 1 and parts["drew"] == 1
        assert replay(trace, DrawingSettings())


def test_a_backbone_of_ones_own(plugins):
    config = preset("mine.wide", vocab_size=64)
    model = Qwen2_5_VL(config, rngs=nnx.Rngs(0))
    tokens = jnp.ones((2, 5), jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(5), (3, 2, 5))
    assert model.logits(model(tokens, positions, jnp.ones((2, 5), jnp.int32))).shape == (2, 5, 64)


@pytest.mark.parametrize("words", readme.commands(), ids=" ".join)
def test_commands_are_understood(words, plugins, tmp_path, monkeypatch):
    """Each one parses, and a config with its changes passes the checks before a run."""
    monkeypatch.chdir(plugins)
    found, rest = find_command(words)
    _, flags = found.parse([word.replace("gs://BUCKET", "/mnt/BUCKET") for word in rest])  # as launch/host.sh
    if "config" in flags and flags.config is not None:
        job = read_job(flags)
        if not any(name in str(words) for name in NEED_PUBLISHED):
            mesh = make_mesh(job.mesh, jax.devices()[: job.mesh.cpu_devices])  # as on one machine
            check(open_run(job, tmp_path, mesh))


@pytest.mark.parametrize("words", readme.mentioned_commands(), ids=" ".join)
def test_commands_in_running_text_are_understood(words, monkeypatch):
    monkeypatch.chdir(readme.ROOT)
    found, rest = find_command([word.replace("=FILE", "=configs/maze_tiny.py") for word in words])
    _, flags = found.parse(rest)
    if "config" in flags and flags.config is not None:
        read_job(flags)


def test_the_list_of_commands_is_the_declared_one():
    assert f"```\n{listing()}\n```" in readme.README


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["vilasr", *name.split(), "--help"])
    out = capsys.readouterr().out.strip()
    assert stop.value.code == 0 and out == COMMANDS[name].help
    assert out.startswith(f"vilasr {name}") and all(flag.usage in out for flag in COMMANDS[name].flags)


def test_every_file_that_is_named_is_there():
    for name in readme.scripts():
        assert (readme.ROOT / name).exists(), name
    missing = [named for named in readme.paths() if not (readme.ROOT / named[1]).exists()]
    assert not missing


def test_every_link_and_anchor_resolves():
    for page, link in readme.links():
        path, _, anchor = link.partition("#")
        target = ((readme.ROOT / page).parent / path).resolve() if path else readme.ROOT / page
        assert target.exists(), f"{page}: {link}"
        if anchor:
            assert anchor in readme.anchors(str(target.relative_to(readme.ROOT))), f"{page}: {link}"


def test_the_readme_is_short():
    assert len(readme.README.splitlines()) < 170


def test_figures_in_the_readme_are_those_of_the_results():
    """A percentage is in one place: what the README quotes is in RESULTS.md, with its interval and date."""
    results = readme.DOCUMENTS["RESULTS.md"]
    figures = readme.re.findall(r"\d+(?:\.\d+)? %", readme.README)
    assert figures and all(figure in results for figure in figures)


def test_the_question_shown_is_one_the_model_was_trained_for():
    """The documents' questions to the quickstart's model are worded as its own are, and as long."""
    job = read_config(readme.ROOT / "configs" / "maze_tiny.py")
    family = get_family("maze")
    worded = family.row(family.spec(job.maze, "test"), 0).question
    tree = ast.parse(readme.modules()["ask_server"])
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    solve = next(words for words in readme.commands() if words[0] == "solve")
    questions = [text for text in texts if isinstance(text, str) and text.startswith("Moves")]
    questions += [solve[solve.index("--question") + 1]]
    assert len(questions) == 2
    for question in questions:
        (moves, rest), (_, right) = (" ".join(q.split()).split(". ", 1) for q in (question, worded))
        assert rest == right and moves.startswith("Moves from the green start: ")
        assert job.maze.min_moves <= moves.count(",") + 1 <= job.maze.max_moves
    assert "sampler.rows(" in readme.modules()["ask_here"]
