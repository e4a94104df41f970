"""One question about some images, answered in the terminal turn by turn."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from vilasr_jax.checkpoint import load_hf
from vilasr_jax.config import EngineSection, JobConfig, MeshSection, SamplingSection, from_config_dict
from vilasr_jax.drawing import DrawingSession, DrawingSettings, Reply
from vilasr_jax.errors import CheckpointError
from vilasr_jax.job import last_stage, load_stage
from vilasr_jax.models.qwen2_5_vl import ModelConfig
from vilasr_jax.parallel import make_mesh
from vilasr_jax.processing import Tokenizer, image_grid, load_image, resize_image
from vilasr_jax.rollout import Engine, Request, Trajectory, make_prompt, suppressed_tokens
from vilasr_jax.training.context import Context


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained model with all that a conversation needs."""

    config: ModelConfig
    graphdef: nnx.GraphDef
    params: Any
    tokenizer: Tokenizer
    settings: DrawingSettings
    job: JobConfig


def open_model(checkpoint: Path) -> Model:
    """Opens a workdir (its last finished stage) or a Hugging Face folder.

    Raises:
      CheckpointError: the folder is neither.
    """
    if (checkpoint / "tokenizer").is_dir() and (checkpoint / "config.json").is_file():
        values = json.loads((checkpoint / "config.json").read_text())
        job = from_config_dict(values)
        context = Context(job, checkpoint)
        stage = last_stage(context)
        if stage == "untrained":
            raise CheckpointError(f"{checkpoint}: no stage is finished yet; run `vilasr train` on it")
        params = load_stage(context, stage)
        return Model(
            context.model_config, context.graphdef, params, context.tokenizer, context.settings, job
        )
    if not (checkpoint / "config.json").is_file():
        raise CheckpointError(f"{checkpoint}: neither a workdir of a run nor a Hugging Face model folder")
    model = load_hf(checkpoint)
    graphdef, params = nnx.split(model)
    settings = DrawingSettings(style="published", prompt="published")
    job = JobConfig()
    return Model(model.config, graphdef, params, Tokenizer.from_dir(checkpoint), settings, job)


class _ToldSession(DrawingSession):
    """Prints each turn as it comes and saves what was drawn."""

    def __init__(self, *args: Any, out: Path, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.out = out

    def step(self, text: str, *, truncated: bool = False) -> Reply:
        reply = super().step(text, truncated=truncated)
        event = self.events[-1]
        print(f"--- turn {len(self.events)}\n{text.strip()}", flush=True)
        for index in event["drawn"]:
            path = self.out / f"image_{index}.png"
            self.images[index - 1].save(path)
            print(f"    drew {path}", flush=True)
        if event["error"]:
            print(f"    told: {event['error']}", flush=True)
        return reply


def solve(
    images: Sequence[str], question: str, checkpoint: Path, out: Path, options: Sequence[str] = ()
) -> Trajectory:
    """Answers `question`, printing the turns; images drawn go to `out`. With `options` it is multiple choice.

    Raises:
      ImageError: an image can't be read.
      CheckpointError: `checkpoint` is no model.
    """
    pixels = [load_image(path) for path in images]
    model = open_model(checkpoint)
    size = model.job.image
    pixels = [resize_image(image, size.min_pixels, size.max_pixels) for image in pixels]
    out.mkdir(parents=True, exist_ok=True)

    def session() -> DrawingSession:
        return _ToldSession(
            pixels, question, question_type=kind, options=options, settings=model.settings, out=out
        )

    kind = "multiple choice" if options else "free-form"
    row = {"id": "question", "question": question, "answer": "", "question_type": kind}
    prompt = make_prompt(model.tokenizer, session())
    sampling = _sampling(model.job.eval.sampling, len(prompt.encoded.ids))
    patches = max(int(np.prod(image_grid(image))) for image in pixels)
    engine = EngineSection(
        slots=1,
        lanes=1,
        prompt_tokens=(_round(len(prompt.encoded.ids)),),
        insert_tokens=(_round(len(pixels) * patches // 4 + 128),),
        prompt_images=(len(pixels),),
        insert_images=(len(pixels),),
        draw_workers=1,
    )
    mesh = make_mesh(MeshSection(), jax.devices()[:1])
    runner = Engine(
        model.config,
        model.graphdef,
        model.tokenizer,
        suppressed_tokens(model.tokenizer, model.config.vocab_size),
        engine,
        sampling,
        (patches,),
        mesh,
    )
    params = jax.device_put(model.params, jax.devices()[0])
    trajectory = runner.generate(params, [Request(row, session, 0)], jax.random.key(0))[0]
    answer = trajectory.answer
    print(f"=== {'answer: ' + answer if answer else 'no answer (' + trajectory.stop_reason + ')'}")
    return trajectory


def _sampling(sampling: SamplingSection, prompt: int) -> SamplingSection:
    """Greedy, with room for the prompt."""
    room = max(sampling.max_tokens, _round(prompt) + 4 * sampling.max_turn_tokens)
    return dataclasses.replace(sampling, temperature=0.0, max_tokens=room)


def _round(tokens: int) -> int:
    return -(-tokens // 32) * 32
