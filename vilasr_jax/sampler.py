"""Sampling from a trained model in Python: `Sampler("runs/quickstart").sample(image, question)`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
from jax.sharding import Mesh
from PIL import Image

from vilasr_jax.config import EngineSection
from vilasr_jax.conversation_settings import frame_times, question_data_type
from vilasr_jax.drawing import DrawingSession, get_format, get_tools
from vilasr_jax.errors import ConfigError
from vilasr_jax.model_bundle import make_engine
from vilasr_jax.parallel import sampling_mesh
from vilasr_jax.processing import load_image, resize_image
from vilasr_jax.progress import StatusLine
from vilasr_jax.rollout import Engine, Request, Trajectory
from vilasr_jax.rollout.sampling_weights import SamplingWeights
from vilasr_jax.solve import round_up
from vilasr_jax.tasks import Row
from vilasr_jax.tasks.rows import question_record, question_row
from vilasr_jax.trained_model import TrainedModel, open_model

Picture = str | Path | bytes | Image.Image


class Sampler:
    """Samples drawing conversations from a model; compiles at the first call.

    Args:
      checkpoint: of any kind, see `open_checkpoint`: a workdir (its last finished stage), "runs/x:rl@120", a
        Hugging Face or Orbax folder, or "hf://ORG/NAME".
      slots: the most conversations at once.
      images: the most images of a question.
      weights: while it samples, "int8", "bf16" or "f32"; "": as the model's settings say.
      max_tokens: of a conversation, its prompt included; 0: as the model's settings say.

    Raises:
      CheckpointError: `checkpoint` isn't a model.
      ConfigError: it does not fit into the devices' memory.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        slots: int = 8,
        images: int = 1,
        weights: str = "",
        max_tokens: int = 0,
    ):
        self.model = open_model(checkpoint, weights)
        self.engine = open_engine(self.model, slots=slots, images=images, max_tokens=max_tokens)
        self.params = load_weights(self.engine, self.model)

    def sample(
        self,
        images: Picture | Sequence[Picture],
        question: str,
        options: Sequence[str] = (),
        *,
        video: bool = False,
        fps: float = 0.0,
        samples: int = 1,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[Trajectory]:
        """Samples conversations about one question.

        Args:
          images: PIL images, paths, or bytes of image files.
          question: text for the model.
          options: of a multiple-choice question.
          video: the images are frames of one video, in order.
          fps: how many of them make a second, for a model that reads the times of frames; 0: no times.
          samples: number of conversations.
          temperature, top_p: of sampling; greedy at temperature 0.
          seed: of the first conversation; the next have the next seeds.

        Raises:
          ImageError: an image can't be read.
          ConfigError: see `frame_times`.
          DataError: more images than `images` of the sampler, or a question that is too long.
        """
        images = [images] if isinstance(images, Picture) else list(images)
        limits = self.model.job.image
        sizes = (limits.min_pixels, limits.max_pixels, self.model.images)
        pixels = [resize_image(load_image(image), *sizes) for image in images]
        times = frame_times(self.model.settings, len(pixels), fps, video)
        kind = question_data_type(self.model.job, video)
        row = question_row(pixels, question, options, kind, seconds=times)
        return self.sample_rows([row], samples=samples, temperature=temperature, top_p=top_p, seed=seed)

    def sample_rows(
        self,
        rows: Sequence[Row],
        *,
        samples: int = 1,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[Trajectory]:
        """Samples conversations about task rows, `samples` of each; see `sample`."""

        def request(number: int, row: Row) -> Request:
            def session() -> DrawingSession:
                return row.session(self.model.settings_for(row.data_type))

            first = seed + number * samples
            record = question_record(row)
            return Request(record, session, first, samples, temperature=temperature, top_p=top_p)

        requests = [request(number, row) for number, row in enumerate(rows)]
        return self.engine.generate(self.params, requests, jax.random.key(0))

    def rows(self, split: str, count: int) -> list[Row]:
        """`count` questions of the job's first task; `split` is "train", "rl", "val" or "test"."""
        return self.model.rows(split, count)


def load_weights(engine: Engine, model: TrainedModel) -> SamplingWeights:
    """The model's weights as its engine samples with them; how much is read is shown on standard error."""
    status = StatusLine()
    weights = engine.load(model.weights, status.loaded)
    status.clear()
    return weights


def open_engine(
    model: TrainedModel,
    *,
    slots: int,
    images: int,
    decode_steps: int = 32,
    call_rows: int = 0,
    lanes: int = 1,
    max_tokens: int = 0,
    mesh: Mesh | None = None,
) -> Engine:
    """An engine on all devices of this machine, for any questions with a long text and `images` of any size.

    Args:
      model: the trained model.
      slots: the most conversations at once.
      images: the most images of a question.
      decode_steps: tokens sampled between two updates of a stream.
      call_rows: see `EngineSection`.
      lanes: see `rollout.engine`.
      max_tokens: of a conversation; 0: those of the model's settings after the longest prompt.
      mesh: None: `sampling_mesh` of this machine.

    Requests bring their own temperature and top-p.

    Raises:
      ConfigError: `max_tokens` has no room for a prompt.
    """
    patches = model.job.image.max_pixels // model.images.patch_size**2
    tokens = patches // model.images.merge_unit  # of an image
    words = model.prompts
    settings, system = model.settings, max(words.system, words.system_video, key=len)
    if settings.actions != "published":
        system = get_format(settings.actions).system(
            words, get_tools(settings.tools), [(0, 0)], False, settings.coordinates
        )
    short = words.name == "short" and settings.actions == "published"
    text = 256 if short else max(1024, 512 + len(model.tokenizer.encode(system)))
    prompts = (round_up(text + tokens), round_up(2 * text + images * tokens))
    sampling = model.job.eval.sampling
    limit = max_tokens or prompts[-1] + sampling.max_tokens
    if limit <= prompts[-1]:
        raise ConfigError(
            f"--max_tokens={limit}: a prompt alone may have {prompts[-1]:,} tokens here; give more, or leave "
            f"it out for {prompts[-1] + sampling.max_tokens:,}"
        )
    sampling = dataclasses.replace(sampling, max_tokens=limit)
    section = EngineSection(
        slots=slots,
        lanes=lanes,
        decode_steps=decode_steps,
        call_rows=call_rows,
        prompt_tokens=prompts,
        insert_tokens=(round_up(96 + tokens),),  # of a drawn image; more come in pieces
        prompt_images=tuple(sorted({1, images})),
        insert_images=(1,),
        per_request_sampling=True,
        weights=model.job.engine.weights,
    )
    unit = model.images.merge_unit
    buckets = tuple(sorted({unit * -(-patches // (unit * parts)) for parts in (4, 1)}))
    return make_engine(model, section, sampling, buckets, mesh or sampling_mesh(model.config, slots))
