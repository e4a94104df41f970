"""One question about some images, answered in the terminal turn by turn."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from vilasr_jax.config import EngineSection, SamplingSection
from vilasr_jax.conversation_settings import frame_times, question_data_type
from vilasr_jax.drawing import DrawingSession
from vilasr_jax.errors import ConfigError
from vilasr_jax.model_bundle import make_engine
from vilasr_jax.parallel import sampling_mesh
from vilasr_jax.processing import image_grid, load_image, resize_image
from vilasr_jax.progress import StatusLine
from vilasr_jax.rollout import Request, Trajectory, make_prompt
from vilasr_jax.tasks.rows import question_record, question_row
from vilasr_jax.trained_model import open_model


class _Printer:
    """Prints a conversation while it is sampled, and saves the drawn images."""

    def __init__(self, out: Path, status: StatusLine):
        self.out, self.status, self.turn, self.opened = out, status, 0, False

    def tokens(self, sample: int, text: str) -> None:
        if not self.opened:
            self.status.clear()
            self.turn, self.opened = self.turn + 1, True
            print(f"--- turn {self.turn}")
        print(text, end="", flush=True)

    def turn_over(self, sample: int, turn: dict, images: list[Image.Image]) -> None:
        self.tokens(sample, "\n")
        self.opened = False
        for index, image in zip(turn["drawn"], images, strict=True):
            path = self.out / f"image_{index}.png"
            image.save(path)
            print(f"    drew {path}", flush=True)
        if turn["error"]:
            print(f"    error: {turn['error']}", flush=True)


def solve(
    images: Sequence[str | Path | Image.Image],
    question: str,
    checkpoint: str | Path,
    out: Path,
    options: Sequence[str] = (),
    weights: str = "",
    max_tokens: int = 0,
    video: bool = False,
    fps: float = 0.0,
) -> Trajectory:
    """Samples one conversation greedily, printing its turns.

    Args:
      images: the images, or their paths.
      question: text for the model.
      checkpoint: of any kind, see `open_checkpoint`.
      out: the folder for drawn images.
      options: of a multiple-choice question.
      weights: as in `open_model`.
      max_tokens: of the conversation, its prompt included; 0: as the model's settings say.
      video: the images are frames of one video, in order.
      fps: how many of them make a second, for a model that reads the times of frames; 0: no times.

    Raises:
      ImageError: an image can't be read.
      CheckpointError: `checkpoint` isn't a model.
      ConfigError: it does not fit into the devices' memory, or the prompt not into `max_tokens`; or see
        `frame_times`.
    """
    pixels = [load_image(path) for path in images]
    model = open_model(checkpoint, weights)
    size, spec = model.job.image, model.images
    pixels = [resize_image(image, size.min_pixels, size.max_pixels, spec) for image in pixels]
    out.mkdir(parents=True, exist_ok=True)

    times = frame_times(model.settings, len(pixels), fps, video)
    row = question_row(pixels, question, options, question_data_type(model.job, video), seconds=times)

    def session() -> DrawingSession:
        return row.session(model.settings_for(row.data_type))

    length = len(make_prompt(model.tokenizer, session()).encoded.ids)
    if 0 < max_tokens <= length:
        raise ConfigError(f"--max_tokens={max_tokens}: the prompt alone has {length} tokens")
    sampling = _sampling(model.job.eval.sampling, length, max_tokens)
    patches = max(int(np.prod(image_grid(image, spec))) for image in pixels)
    engine = EngineSection(
        slots=1,
        lanes=1,
        decode_steps=8,  # tokens that are printed at once
        prompt_tokens=(min(round_up(length), sampling.max_tokens),),
        insert_tokens=(round_up(len(pixels) * patches // spec.merge_unit + 128),),
        prompt_images=(len(pixels),),
        insert_images=(len(pixels),),
        draw_workers=1,
        weights=model.job.engine.weights,
    )
    runner = make_engine(model, engine, sampling, (patches,), sampling_mesh(model.config, engine.slots))
    status = StatusLine()
    runner.steps.announce = status.compiling
    params = runner.load(model.weights, status.loaded)
    printer = _Printer(out, status)
    request = Request(question_record(row), session, 0, on_tokens=printer.tokens, on_turn=printer.turn_over)
    trajectory = runner.generate(params, [request], jax.random.key(0))[0]
    answer = trajectory.answer
    print(f"=== {'answer: ' + answer if answer else 'no answer (' + trajectory.stop_reason + ')'}")
    return trajectory


def _sampling(sampling: SamplingSection, prompt: int, max_tokens: int) -> SamplingSection:
    """Greedy sampling, with `max_tokens` or a limit that covers the prompt."""
    tokens = max_tokens or max(sampling.max_tokens, round_up(prompt) + 4 * sampling.max_turn_tokens)
    return dataclasses.replace(sampling, temperature=0.0, max_tokens=tokens)


def round_up(tokens: int) -> int:
    """The next multiple of 32: a few lengths, so that few programs are compiled."""
    return -(-tokens // 32) * 32
