"""A model ready to be asked, from Python: `Asker("runs/quickstart").ask(image, question)`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
from jax.sharding import Mesh
from PIL import Image

from vilasr_jax.config import EngineSection, MeshSection
from vilasr_jax.conversation_settings import question_data_type
from vilasr_jax.drawing import DrawingSession
from vilasr_jax.parallel import make_mesh, replicated
from vilasr_jax.processing import load_image, resize_image
from vilasr_jax.rollout import Engine, Request, Trajectory, suppressed_tokens
from vilasr_jax.solve import Model, open_model, round_up
from vilasr_jax.tasks import Row, get_family

Picture = str | Path | bytes | Image.Image


class Asker:
    """Answers questions in drawn conversations; compiled at the first one.

    Args:
      checkpoint: a workdir (its last finished stage) or a Hugging Face folder.
      slots: conversations at once.
      images: most images of a question.

    Raises:
      CheckpointError: `checkpoint` is no model.
    """

    def __init__(self, checkpoint: str | Path, *, slots: int = 8, images: int = 1):
        self.model = open_model(Path(checkpoint))
        mesh = make_mesh(MeshSection(), jax.devices()[:1])
        self.engine = open_engine(self.model, mesh, slots=slots, images=images)
        self.params = jax.device_put(self.model.params, replicated(mesh))

    def ask(
        self,
        images: Picture | Sequence[Picture],
        question: str,
        options: Sequence[str] = (),
        *,
        samples: int = 1,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[Trajectory]:
        """`samples` conversations about one question; greedy at temperature 0.

        Raises:
          ImageError: an image can't be read.
          DataError: more images or a longer question than there is room for.
        """
        images = [images] if isinstance(images, Picture) else list(images)
        limits = self.model.job.image
        sizes = (limits.min_pixels, limits.max_pixels, self.model.images)
        pixels = [resize_image(load_image(image), *sizes) for image in images]
        kind = "multiple choice" if options else "free-form"
        data_type = question_data_type(self.model.job)
        row = Row("question", question, "", kind, tuple(options), tuple(pixels), data_type)
        return self.answer([row], samples=samples, temperature=temperature, top_p=top_p, seed=seed)

    def answer(
        self,
        rows: Sequence[Row],
        *,
        samples: int = 1,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[Trajectory]:
        """Conversations about task rows, `samples` of each."""

        def request(number: int, row: Row) -> Request:
            plain = {f.name: getattr(row, f.name) for f in dataclasses.fields(row) if f.name != "images"}
            plain["options"] = list(row.options)

            def session() -> DrawingSession:
                return row.session(self.model.settings_for(row.data_type))

            first = seed + number * samples
            return Request(plain, session, first, samples, temperature=temperature, top_p=top_p)

        requests = [request(number, row) for number, row in enumerate(rows)]
        return self.engine.generate(self.params, requests, jax.random.key(0))

    def rows(self, split: str, count: int) -> list[Row]:
        """`count` questions of the job's own tasks: "train", "rl", "val", "test" or "ood"."""
        return list(task_rows(self.model, split, count))


def task_rows(model: Model, split: str, count: int) -> list[Row]:
    """`count` rows of the first task that the model was trained on; none without a task."""
    job = model.job
    if not job.tasks:
        return []
    family = get_family(job.tasks[0])
    spec = family.spec(getattr(job, family.name, None), split)
    return list(family.rows(spec, count))


def open_engine(
    model: Model, mesh: Mesh, *, slots: int, images: int, decode_steps: int = 32, lanes: int = 1
) -> Engine:
    """An engine for questions that are not known yet: room for `images` of the largest size and a long text.

    Requests bring their own temperature and top-p.
    """
    patches = model.job.image.max_pixels // model.images.patch_size**2
    tokens = patches // model.images.merge_unit  # of an image
    words = model.prompts
    text = 256 if words.name == "short" else max(1024, 512 + len(model.tokenizer.encode(words.system)))
    prompts = (round_up(text + tokens), round_up(2 * text + images * tokens))
    sampling = model.job.eval.sampling
    sampling = dataclasses.replace(sampling, max_tokens=prompts[-1] + sampling.max_tokens)
    counts = tuple(sorted({1, images}))
    section = EngineSection(
        slots=slots,
        lanes=lanes,
        decode_steps=decode_steps,
        prompt_tokens=prompts,
        insert_tokens=tuple(sorted({round_up(96 + tokens), round_up(256 + images * tokens)})),
        prompt_images=counts,
        insert_images=counts,
        per_request_sampling=True,
    )
    suppressed = suppressed_tokens(model.tokenizer, model.config.vocab_size)
    buckets = tuple(sorted({4 * -(-patches // (4 * share)) for share in (16, 4, 1)}))
    return Engine(model.config, model.graphdef, model.tokenizer, suppressed, section, sampling, buckets, mesh)
