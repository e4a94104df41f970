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
from PIL import Image

from vilasr_jax.checkpoint import import_hf
from vilasr_jax.config import EngineSection, JobConfig, MeshSection, SamplingSection, from_config_dict
from vilasr_jax.conversation_settings import drawing_settings, question_data_type, read_exported_settings
from vilasr_jax.drawing import DrawingSession, DrawingSettings
from vilasr_jax.drawing.prompts import PromptSet
from vilasr_jax.errors import CheckpointError
from vilasr_jax.job import last_stage, load_stage
from vilasr_jax.models import ImageSpec, ModelConfig, family_of
from vilasr_jax.models.params import abstract
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
    job: JobConfig
    prompts: PromptSet

    @property
    def images(self) -> ImageSpec:
        """How the model's pictures are resized and cut."""
        return family_of(self.config).images

    @property
    def settings(self) -> DrawingSettings:
        """How conversations about a user's question are held."""
        return self.settings_for(question_data_type(self.job))

    def settings_for(self, data_type: str) -> DrawingSettings:
        """How conversations about rows of a data type (`Row.data_type`) are held."""
        return drawing_settings(self.job, data_type, self.prompts, family_of(self.config))


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
        params = load_stage(context, stage, job.eval.best)
        return Model(context.model_config, context.graphdef, params, context.tokenizer, job, context.prompts)
    if not (checkpoint / "config.json").is_file():
        raise CheckpointError(f"{checkpoint}: neither a workdir of a run nor a Hugging Face model folder")
    job, prompts = read_exported_settings(checkpoint)
    config, params = import_hf(checkpoint, dtype=job.model.dtype)
    tokenizer = Tokenizer.from_dir(checkpoint, family_of(config))
    return Model(config, abstract(config)[0], params, tokenizer, job, prompts)


class _Teller:
    """Prints the conversation while it is written, and saves what is drawn."""

    def __init__(self, out: Path):
        self.out, self.turn, self.opened = out, 0, False

    def tokens(self, sample: int, text: str) -> None:
        if not self.opened:
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
            print(f"    told: {turn['error']}", flush=True)


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
    size, spec = model.job.image, model.images
    pixels = [resize_image(image, size.min_pixels, size.max_pixels, spec) for image in pixels]
    out.mkdir(parents=True, exist_ok=True)

    def session() -> DrawingSession:
        return DrawingSession(pixels, question, question_type=kind, options=options, settings=model.settings)

    kind = "multiple choice" if options else "free-form"
    row = {"id": "question", "question": question, "answer": "", "question_type": kind}
    prompt = make_prompt(model.tokenizer, session())
    sampling = _sampling(model.job.eval.sampling, len(prompt.encoded.ids))
    patches = max(int(np.prod(image_grid(image, spec))) for image in pixels)
    engine = EngineSection(
        slots=1,
        lanes=1,
        decode_steps=8,  # tokens that are told at once
        prompt_tokens=(round_up(len(prompt.encoded.ids)),),
        insert_tokens=(round_up(len(pixels) * patches // spec.merge_unit + 128),),
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
    teller = _Teller(out)
    request = Request(row, session, 0, on_tokens=teller.tokens, on_turn=teller.turn_over)
    trajectory = runner.generate(params, [request], jax.random.key(0))[0]
    answer = trajectory.answer
    print(f"=== {'answer: ' + answer if answer else 'no answer (' + trajectory.stop_reason + ')'}")
    return trajectory


def _sampling(sampling: SamplingSection, prompt: int) -> SamplingSection:
    """Greedy, with room for the prompt."""
    room = max(sampling.max_tokens, round_up(prompt) + 4 * sampling.max_turn_tokens)
    return dataclasses.replace(sampling, temperature=0.0, max_tokens=room)


def round_up(tokens: int) -> int:
    """The next multiple of 32: lengths that share one compiled program."""
    return -(-tokens // 32) * 32
