"""How long conversations are: drawn from a distribution, or read from recorded ones."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource

from vilasr_jax.config import JobConfig
from vilasr_jax.errors import ConfigError, DataError
from vilasr_jax.models import ModelFamily
from vilasr_jax.rollout import Trajectory

REPLY_TEXT = 40  # tokens of a reply besides those of its image


class Turn(NamedTuple):
    """A turn of the model, and the reply to it."""

    tokens: int  # sampled
    reply: int = 0  # inserted after it; 0: the conversation is over
    images: int = 0  # drawn, and inserted with the reply


class Lengths(NamedTuple):
    """A conversation as counts."""

    prompt: int  # tokens, those of its images included
    images: int  # of the prompt
    turns: tuple[Turn, ...]

    @property
    def sampled(self) -> int:
        """Tokens that the model writes."""
        return sum(turn.tokens for turn in self.turns)

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.prompt + self.sampled + sum(turn.reply for turn in self.turns)

    @property
    def drawn(self) -> int:
        """Images that its turns draw."""
        return sum(turn.images for turn in self.turns)


@dataclasses.dataclass(frozen=True)
class Workload:
    """The distribution of conversations, and how many there are.

    Turns and tokens of a turn are log-normal about their means; all but the last turn draw one image.
    """

    turns: float = 5.0  # of a conversation, on average
    turn_tokens: float = 200.0  # sampled in a turn, on average
    tokens: int = 4096  # of a conversation with the average turns, its prompt included
    prompt_images: int = 1  # images of a prompt
    image_tokens: int = 0  # of an image; 0: the most that the config allows
    spread: float = 0.5  # standard deviation of the logarithms; 0: all conversations are equal
    seed: int = 0
    questions: int = 0  # of RL's epochs; 0: not known
    traces: int = 0  # conversations of a supervised epoch; 0: those of config.cold_start
    rows: int = 0  # packed rows of a supervised epoch; 0: computed from the conversations

    def __post_init__(self):
        for name in ("turns", "turn_tokens", "tokens"):
            if not 1 <= getattr(self, name) < math.inf:
                raise ConfigError(
                    f"--conversations: {name}={getattr(self, name):g} must be a number from 1 on"
                )
        for name in ("prompt_images", "image_tokens", "spread", "seed", "questions", "traces", "rows"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(
                    f"--conversations: {name}={getattr(self, name):g} must be a number from 0 on"
                )

    def for_job(self, job: JobConfig, family: ModelFamily) -> Workload:
        """With the job's image size and number of traces, where they are not given.

        Raises:
          ConfigError: the prompt would have no room, or more than the job's engine has.
        """
        tokens = self.image_tokens or job.image.max_pixels // family.images.factor**2
        found = dataclasses.replace(self, image_tokens=tokens, traces=self.traces or job.cold_start.traces)
        if found.prompt < self.prompt_images * tokens + 1:
            raise ConfigError(
                f"--conversations: tokens={self.tokens} leaves {found.prompt} for the prompt with "
                f"{self.prompt_images} images of {tokens} tokens, after {self.turns:g} turns of "
                f"{self.turn_tokens:g} tokens and their replies"
            )
        most, images = job.engine.prompt_tokens[-1], job.engine.prompt_images[-1]
        if found.prompt > most or self.prompt_images > images:
            raise ConfigError(
                f"--conversations: a prompt of {found.prompt} tokens and {self.prompt_images} images; "
                f"config.engine has prompt_tokens={most} and prompt_images={images} at most"
            )
        return found

    @property
    def reply(self) -> int:
        """Tokens of a reply with an image."""
        return self.image_tokens + REPLY_TEXT

    @property
    def prompt(self) -> int:
        """Tokens of a prompt."""
        return round(self.tokens - self.turns * self.turn_tokens - (self.turns - 1) * self.reply)


def drawn_lengths(workload: Workload, job: JobConfig, count: int, seed: int) -> list[Lengths]:
    """`count` conversations of a workload, as the job's limits cut them; the same ones for the same seed."""
    rng = np.random.default_rng([workload.seed, seed])
    sampling, found = job.rl.sampling, []

    def draw(mean: float, most: int) -> int:
        sigma = workload.spread
        value = mean * float(np.exp(sigma * rng.standard_normal() - sigma**2 / 2)) if sigma else mean
        return min(max(round(value), 1), most)

    for _ in range(count):
        left, turns = sampling.max_tokens - workload.prompt, []
        for number in range(last := draw(workload.turns, job.drawing.max_turns)):
            tokens = min(draw(workload.turn_tokens, sampling.max_turn_tokens), left)
            left -= tokens
            over = number + 1 == last or left <= workload.reply
            turns.append(Turn(tokens) if over else Turn(tokens, workload.reply, 1))
            if over:
                break
            left -= workload.reply
        found.append(Lengths(workload.prompt, workload.prompt_images, tuple(turns)))
    return found


def recorded_lengths(folder: Path, workload: Workload) -> dict[str, list[Lengths]]:
    """The conversations below a folder, by question: stored trajectories and `results.jsonl`.

    A line of `results.jsonl` has the sampled tokens of all turns: each turn is given as many as its text is
    long; prompt and replies are the workload's.

    Raises:
      DataError: there are none.
    """
    found: dict[str, list[Lengths]] = {}
    for question, lengths in (*_stored(folder), *_results(folder, workload)):
        if lengths.turns:
            found.setdefault(question, []).append(lengths)
    if not found:
        raise DataError(f"--recorded={folder}: no sampled conversation is stored there")
    return found


def _stored(folder: Path) -> Iterator[tuple[str, Lengths]]:
    for path in sorted(folder.rglob("samples/*.array_record")):
        with ArrayRecordDataSource([str(path)]) as source:
            for number in range(len(source)):
                trajectory = Trajectory.from_bytes(source[number])
                yield trajectory.id.rpartition("/")[0], lengths_of(trajectory)


def lengths_of(trajectory: Trajectory) -> Lengths:
    """The counts of a sampled conversation."""
    mask = np.asarray(trajectory.loss_mask, bool)
    edges = [0, *(np.flatnonzero(np.diff(mask)) + 1).tolist(), len(mask)]
    runs = [(bool(mask[a]), b - a) for a, b in itertools.pairwise(edges) if b > a]
    prompt = runs.pop(0)[1] if runs and not runs[0][0] else 0
    drawn = [len(turn["drawn"]) for turn in trajectory.turns]
    turns = []
    for at in range(0, len(runs), 2):
        reply = runs[at + 1][1] if at + 1 < len(runs) else 0
        images = drawn[at // 2] if at // 2 < len(drawn) and reply else 0
        turns.append(Turn(runs[at][1], reply, images))
    return Lengths(prompt, trajectory.base_images, tuple(turns))


def _results(folder: Path, workload: Workload) -> Iterator[tuple[str, Lengths]]:
    for path in sorted(folder.rglob("results.jsonl")):
        for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                line = json.loads(text)
                yield str(line["id"]), _of_line(line, workload)
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{path}: line {number} is no answered question ({error!r})") from None


def _of_line(line: dict[str, Any], workload: Workload) -> Lengths:
    sizes = [max(len(turn["text"]), 1) for turn in line["turns"]]
    turns = []
    for number, (turn, size) in enumerate(zip(line["turns"], sizes, strict=True), 1):
        tokens = max(round(line["tokens"] * size / sum(sizes)), 1)
        images = int(bool(turn["calls"]) and turn["error"] is None)
        reply = REPLY_TEXT + images * workload.image_tokens
        turns.append(Turn(tokens, reply, images) if number < len(sizes) else Turn(tokens))
    return Lengths(workload.prompt, workload.prompt_images, tuple(turns))


def grouped(
    workload: Workload,
    job: JobConfig,
    recorded: dict[str, list[Lengths]] | None,
    questions: int,
    samples: int,
) -> list[list[Lengths]]:
    """Conversations about `questions` questions, `samples` of each."""
    if recorded is None:
        found = drawn_lengths(workload, job, questions * samples, seed=1)
        return [found[first : first + samples] for first in range(0, len(found), samples)]
    names, rng = sorted(recorded), np.random.default_rng([workload.seed, 1])
    chosen = [recorded[names[at]] for at in rng.integers(len(names), size=questions)]
    return [[_limited(group[k % len(group)], group[0], job) for k in range(samples)] for group in chosen]


def _limited(lengths: Lengths, first: Lengths, job: JobConfig) -> Lengths:
    """With the prompt of its question, as long as the job's engine accepts."""
    prompt = min(first.prompt, job.engine.prompt_tokens[-1])
    return lengths._replace(prompt=prompt, images=min(first.images, job.engine.prompt_images[-1]))
