"""The smallest model and conversations that meet every turn of the way, for the tests of several rooms."""

import functools
import random

import jax
import numpy as np
from flax import nnx
from PIL import Image

from vilasr_jax.config import EngineSection, MeshSection, SamplingSection
from vilasr_jax.drawing import Reply
from vilasr_jax.models.qwen2_5_vl import ModelConfig, Qwen2_5_VL, preset
from vilasr_jax.parallel import make_mesh, replicated
from vilasr_jax.processing import Buckets, Tokenizer, train_tiny_tokenizer
from vilasr_jax.rollout import Engine, Request, Trajectory, suppressed_tokens

PATCHES = (24,)
BUCKETS = Buckets((64, 160), (1, 8), PATCHES)
SIZES = ((28, 28), (56, 28), (84, 56), (28, 84))  # width, height in pixels: 1, 2, 6 and 3 tokens


@functools.cache
def tokenizer() -> Tokenizer:
    """Bytes, a few words and Qwen's special tokens."""
    return train_tiny_tokenizer(["look at image 1, then 2"], ["look at"], 300)


@functools.cache
def config() -> ModelConfig:
    """Two layers with odd widths."""
    special = tokenizer().special
    return preset(
        "tiny",
        vocab_size=-(-tokenizer().vocab_size // 8) * 8,
        hidden_size=42,
        intermediate_size=37,
        num_layers=2,
        num_heads=3,
        num_kv_heads=1,
        head_dim=14,
        mrope_section=(2, 2, 3),
        **special.config_fields(),
        vision={"hidden_size": 24, "intermediate_size": 29},
        init_std=0.3,
        scan_unroll=2,
    )


@functools.cache
def graphdef() -> nnx.GraphDef:
    """The model's structure."""
    return nnx.graphdef(nnx.eval_shape(lambda: Qwen2_5_VL(config(), rngs=nnx.Rngs(0))))


@functools.cache
def params(seed: int = 0):
    """Random weights, biases and norms too."""
    shapes = nnx.split(nnx.eval_shape(lambda: Qwen2_5_VL(config(), rngs=nnx.Rngs(0))))[1]
    rng = np.random.default_rng(seed)

    def weight(path, leaf):
        norm = "norm" in jax.tree_util.keystr(path) or "ln_q" in jax.tree_util.keystr(path)
        return (norm + rng.normal(0, 0.3, leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(weight, shapes)


@functools.cache
def suppressed(words: int = 12) -> np.ndarray:
    """[v] bool: the model may write `words` letters and the ends of a turn, so that it often ends one."""
    mask = suppressed_tokens(tokenizer(), config().vocab_size)
    letters = [i for text in "abcdefghijklmnopqrstuvwxyz"[:words] for i in tokenizer().encode(text)]
    special = [tokenizer().special.im_end, tokenizer().special.endoftext]
    allowed = np.zeros_like(mask)
    allowed[[*letters, *special]] = True
    return mask | ~allowed


def mesh(devices: int = 1):
    """A mesh of the first `devices` devices along the data axis."""
    return make_mesh(MeshSection(), jax.devices()[:devices])


def place(state, over):
    """Weights on every device of a mesh."""
    return jax.device_put(state, replicated(over))


def picture(rng: random.Random) -> Image.Image:
    """Noise of a random size."""
    width, height = rng.choice(SIZES)
    pixels = np.frombuffer(rng.randbytes(width * height * 3), np.uint8)
    return Image.fromarray(pixels.reshape(height, width, 3))


class ScriptedSession:
    """Answers whatever the model writes with a picture, or now and then with words alone.

    A random model seldom draws: here its text does not matter. All that is sent depends on `seed` only.
    """

    def __init__(self, seed: int, turns: int | None = None):
        self.rng = random.Random(f"scripted {seed}")
        self.turns = self.rng.randint(1, 5) if turns is None else turns
        self.images = [picture(self.rng)]
        self.events: list[dict] = []
        words = " 1" * self.rng.randint(0, 6)
        self.messages = [
            {"role": "system", "content": [{"type": "text", "text": "look"}]},
            {"role": "user", "content": [self._image(), {"type": "text", "text": f"look at{words}"}]},
        ]

    def _image(self) -> dict:
        return {"type": "image", "image": self.images[-1]}

    def step(self, text: str, *, truncated: bool = False) -> Reply:
        """The next scripted reply."""
        event = {"text": text, "calls": [], "error": None, "drawn": [], "corrected": 0}
        self.events.append(event)
        if len(self.events) == self.turns:
            return Reply(None, True, "answer", 0, None)
        content = [{"type": "text", "text": "2" * self.rng.randint(1, 5)}]
        if self.rng.random() < 0.8:
            self.images.append(picture(self.rng))
            content.insert(self.rng.randint(0, 1), self._image())
            event["drawn"] = [len(self.images)]
        return Reply({"role": "user", "content": content}, False, None, len(event["drawn"]), None)


def requests(count: int, *, samples: int = 1, first: int = 0, session=ScriptedSession) -> list[Request]:
    """Questions; the samples of one have the same prompt and the same script."""
    return [
        Request(
            {"id": f"row-{first + i}", "question": "?", "meta": {}},
            lambda i=i: session(first + i),
            (first + i) * samples,
            samples,
        )
        for i in range(count)
    ]


SAMPLING = SamplingSection(temperature=1.0, max_turn_tokens=7, max_tokens=150)
GREEDY = SamplingSection(temperature=0.0, max_turn_tokens=7, max_tokens=90)


@functools.cache
def engine(slots: int = 6, lanes: int = 2, devices: int = 1, sampling: SamplingSection = SAMPLING) -> Engine:
    """A compiled engine; the same arguments give the same engine."""
    section = EngineSection(
        slots=slots, lanes=lanes, decode_steps=5, stop_fraction=0.5, prompt_tokens=(40,), insert_tokens=(32,)
    )
    return Engine(
        config(),
        graphdef(),
        tokenizer(),
        suppressed(),
        engine=section,
        sampling=sampling,
        patches=PATCHES,
        mesh=mesh(devices),
    )


def generate(runner: Engine, requests: list[Request], *, seed: int = 0, key: int = 0) -> list[Trajectory]:
    """Runs an engine with the random weights of `seed`."""
    return runner.generate(place(params(seed), runner.steps.mesh), requests, jax.random.key(key))
