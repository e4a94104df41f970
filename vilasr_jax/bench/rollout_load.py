"""The conversations and the model of `vilasr bench rollout`.

Random weights write no drawings, so each turn has a script: how many tokens the model writes (the ends of a
turn are masked, so it never stops earlier) and what is then drawn. All other code is that of a rollout.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from PIL import Image

from vilasr_jax.bench.small import small_preset
from vilasr_jax.config import EngineSection, MeshSection, SamplingSection
from vilasr_jax.drawing import DrawingSession, DrawingSettings, Reply
from vilasr_jax.models import DEFAULT_PRESET, ModelConfig, family_of
from vilasr_jax.models.params import build
from vilasr_jax.parallel import make_mesh
from vilasr_jax.processing import Encoded, Tokenizer, encode_turn, train_tiny_tokenizer
from vilasr_jax.rollout import Engine, Request, make_prompt, suppressed_tokens
from vilasr_jax.rollout.batch import Incoming, Shape
from vilasr_jax.rollout.cache_writer import CacheWriter
from vilasr_jax.rollout.lane import Lane, Prompt

QUESTION = "How far is the red chair from the door, and which of the two is nearer to the window? "
WORDS = (QUESTION, "The index of the given image is 1 (width: 448, height: 448). A look at the drawn image.")
DRAW = """<think> look </think>
Action: Object Mapper
```json
[{"index": 1, "bbox_2d": [%d, %d, %d, %d], "label": "%s"}]
```"""


@dataclasses.dataclass(frozen=True)
class Load:
    """The conversations of a measurement."""

    questions: int = 6
    group: int = 8  # conversations per question
    turns: int = 6  # of the model; all but the last draw
    side: int = 448  # pixels of an image; 448: 256 tokens
    shortest: int = 8  # tokens per turn, spread evenly in their logarithm
    longest: int = 80
    slots: int = 16


class ScriptedSession(DrawingSession):
    """Draws what its script says, whatever the model writes. `limits`: tokens of each of its turns."""

    def __init__(self, load: Load, question: int, sample: int):
        pixels = np.random.default_rng(question).integers(0, 255, (14, 14, 3), np.uint8)
        image = Image.fromarray(pixels).resize((load.side, load.side))
        settings = DrawingSettings(prompt="short", max_turns=load.turns + 1, max_images=load.turns + 1)
        super().__init__([image], QUESTION, settings=settings)
        rng = random.Random(f"{question} {sample}")
        spread = math.log(load.longest / load.shortest)
        self.limits = [round(load.shortest * math.exp(rng.uniform(0, spread))) for _ in range(load.turns)]
        corner = [rng.randrange(load.side // 2) for _ in range(2 * load.turns)]
        self.script = [
            DRAW % (x, y, x + load.side // 3, y + load.side // 3, chr(97 + turn))
            for turn, (x, y) in enumerate(zip(corner[::2], corner[1::2], strict=True))
        ]

    def step(self, text: str, *, truncated: bool = False, lost: str | None = None) -> Reply:
        """Accepts a turn; the reply is the script's, whatever the turn says."""
        turn = len(self.events)
        last = turn + 1 == len(self.limits)
        return super().step("<answer> A </answer>" if last else self.script[turn], lost=lost)


class ScriptedEngine(Engine):
    """Lets the model write as many tokens as the script says."""

    def turn_limit(self, conversation) -> int:
        return conversation.session.limits[len(conversation.session.events)]


class RereadingWriter(CacheWriter):
    """Drops the cache at each turn: the conversation so far is encoded and prefilled from its beginning."""

    def prefill(self, params: Any, admitted: dict[int, Prompt]) -> None:
        for slots in itertools.zip_longest(*self.by_shard(admitted)):  # one row of each shard per call
            super().prefill(params, {slot: admitted[slot] for slot in slots if slot is not None})

    def insert(self, lane: Lane, params: Any, key: jax.Array) -> None:
        again: dict[int, Prompt] = {}
        for slot in lane.inserts:
            conversation = lane.live[slot]
            special = conversation.prompt.encoded.special
            ids = np.concatenate(conversation.tokens)
            images = conversation.session.images[: conversation.images_read]
            again[slot] = Prompt(Incoming(Encoded(ids, np.zeros(len(ids), bool), images, special), 0))
        lane.inserts = {}
        self.prefill(params, again)
        self.start(lane, params, key, again)


class RereadingEngine(ScriptedEngine):
    """Prefills the full conversation at each of its turns."""

    writer_class = RereadingWriter

    def prompt_shapes(self) -> list[Shape]:
        """A row of a shard with the images of one to all turns, and any length that many turns may have."""
        images, patches = self.prompt_buckets.images, self.prompt_buckets.patches[-1]
        return [
            Shape(1, tokens, count, patches)
            for at, tokens in enumerate(self.prompt_buckets.tokens)
            for count in images[at : at + 3]
        ]


@dataclasses.dataclass(frozen=True)
class Subject:
    """The model of the benchmark, about 30 million random parameters."""

    config: ModelConfig
    graphdef: nnx.GraphDef
    params: Any
    tokenizer: Tokenizer


def make_subject(size: str = DEFAULT_PRESET) -> Subject:
    """30M parameters in float32 of the family of a small preset, and a tokenizer of 512 entries."""
    tokenizer = train_tiny_tokenizer(list(WORDS), [], 512, family_of(small_preset(size)))
    special = tokenizer.special
    config = small_preset(
        size,
        vocab_size=-(-tokenizer.vocab_size // 8) * 8,
        hidden_size=640,
        intermediate_size=1728,
        num_layers=5,
        num_heads=10,
        num_kv_heads=2,
        head_dim=64,
        mrope_section=(12, 10, 10),
        scan_unroll=1,
        **special.config_fields(),
        vision=dict(depth=3, hidden_size=384, intermediate_size=1024, num_heads=6),
    )
    graphdef, params = nnx.split(build(config))
    return Subject(config, graphdef, params, tokenizer)


def make_requests(load: Load) -> list[Request]:
    """All conversations of a load."""
    return [
        Request({"id": f"question-{q}"}, _Sessions(load, q), q * load.group, load.group)
        for q in range(load.questions)
    ]


class _Sessions:
    """Creates the sessions of a question's samples, one after another."""

    def __init__(self, load: Load, question: int):
        self.load, self.question, self.opened = load, question, 0

    def __call__(self) -> ScriptedSession:
        self.opened += 1
        return ScriptedSession(self.load, self.question, self.opened - 1)


def ruled_out(subject: Subject) -> np.ndarray:
    """[v] bool: tokens that are never sampled, the ends of a turn included."""
    mask = suppressed_tokens(subject.tokenizer, subject.config.vocab_size)
    mask[[subject.tokenizer.special.im_end, subject.tokenizer.special.endoftext]] = True
    return mask


def make_engine(
    kind: type[Engine], load: Load, subject: Subject, mesh: Mesh | None = None, **changes: Any
) -> Engine:
    """An engine whose buckets fit the load tightly.

    Args:
      kind: its class.
      load: the conversations.
      subject: the model.
      mesh: by default over all devices.
      changes: other fields of its `EngineSection`.
    """
    session = ScriptedSession(load, 0, 0)
    prompt = len(make_prompt(subject.tokenizer, session).encoded.ids)
    message = session.step("").message
    assert message is not None, "a script has more than one turn"
    insert = 1 + len(encode_turn(subject.tokenizer, message, closed=False).ids) + 2
    turn = insert + load.longest
    prompts = (_round(prompt), *(_round(prompt + turn * n) for n in range(1, load.turns)))
    section = EngineSection(
        slots=load.slots,
        lanes=2,
        decode_steps=16,
        stop_fraction=0.2,
        prompt_tokens=prompts if kind is RereadingEngine else prompts[:1],
        insert_tokens=(_round(insert),),
        prompt_images=tuple(range(1, load.turns + 1)) if kind is RereadingEngine else (1,),
    )
    section = dataclasses.replace(section, **changes)
    sampling = SamplingSection(
        temperature=0.0, max_turn_tokens=load.longest, max_tokens=_round(prompt + turn * load.turns)
    )
    return kind(
        subject.config,
        subject.graphdef,
        subject.tokenizer,
        ruled_out(subject),
        engine=section,
        sampling=sampling,
        patches=((load.side // family_of(subject.config).images.patch_size) ** 2,),
        mesh=make_mesh(MeshSection()) if mesh is None else mesh,
    )


def _round(tokens: int) -> int:
    return -(-tokens // 16) * 16
