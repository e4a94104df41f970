"""What every stage of a job shares: tokenizer, model, mesh, drawing settings, task rows."""

from __future__ import annotations

import dataclasses
import math
import pickle
import shutil
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from vilasr_jax.checkpoint import CheckpointStore
from vilasr_jax.checkpoint.hf_config import config_from_hf, hf_family, read_json
from vilasr_jax.checkpoint.hf_import import import_hf, open_hf
from vilasr_jax.config import JobConfig, SamplingSection, to_dict
from vilasr_jax.conversation_settings import drawing_settings
from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.drawing.prompts import PromptSet
from vilasr_jax.errors import ConfigError, DataError, Stopped
from vilasr_jax.files import write_json
from vilasr_jax.models import Model, ModelConfig, ModelFamily, family_of, preset, published_sizes
from vilasr_jax.models.params import build, decoder_layers, output_head
from vilasr_jax.models.sharding import param_shardings
from vilasr_jax.parallel import (
    any_host,
    barrier,
    gather,
    gather_bytes,
    host_rows,
    is_writer,
    make_mesh,
    place,
)
from vilasr_jax.processing import (
    Batch,
    Buckets,
    Budget,
    Encoded,
    Tokenizer,
    check_fits,
    patch_counts,
    train_tiny_tokenizer,
)
from vilasr_jax.rewards import RewardSettings, score
from vilasr_jax.rollout import Engine, Request, Trajectory, suppressed_tokens
from vilasr_jax.tasks import Family, Row, get_family
from vilasr_jax.tasks.phrases import common_phrases, longest_first
from vilasr_jax.tasks.pipeline import batches
from vilasr_jax.tasks.sources import MappedSource
from vilasr_jax.tasks.stored import StoredRow
from vilasr_jax.training import interrupt
from vilasr_jax.training.duration import stage_steps
from vilasr_jax.training.imported import Imported
from vilasr_jax.training.soft_drawing import SoftDrawing
from vilasr_jax.training.usable import Fitting, check_some, usable_rows
from vilasr_jax.training.wording import job_prompts

# The key of config.data that names what a stage asks.
QUESTIONS = {"rl": "questions", "reflect": "reflect_questions", "synthesis": "synthesis_questions"}
# What is there once a stage has asked some: from then on the questions and their order stay.
_BEGUN = {
    "questions": "rl/checkpoints",
    "reflect_questions": "reflect/samples",
    "synthesis_questions": "traces",
}


class Context:
    """A job's fixed parts, each made when first needed.

    Args:
      job: the configuration.
      workdir: the run's folder; tokenizer files are kept there.
      mesh: by default over all devices, as `job.mesh` says.
      profile: steps of each stage that the JAX profiler traces.
    """

    def __init__(self, job: JobConfig, workdir: Path, mesh: Mesh | None = None, profile: int = 0):
        self.job, self.workdir, self.profile = job, workdir, profile
        self.mesh = make_mesh(job.mesh) if mesh is None else mesh
        sizes = (job.buckets.tokens, job.buckets.images, job.buckets.patches)
        if jax.process_count() > 1:  # hosts do not see each other's lengths: one shape for all
            sizes = tuple(axis[-1:] for axis in sizes)
        self._sizes = sizes
        self._engines: dict[SamplingSection, Engine] = {}
        self._usable_numbers: dict[str, np.ndarray] = {}

    @cached_property
    def prompts(self) -> PromptSet:
        """The words that conversations are held with."""
        return job_prompts(self.job, self.workdir)

    @cached_property
    def settings(self) -> DrawingSettings:
        """How conversations are held, but for limits of one data type (see `drawing_settings`)."""
        return drawing_settings(self.job, "vqa", self.prompts, self.model_family)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Read from the workdir; put there from `job.tokenizer` or `model.init_from`, else trained anew."""
        kept = self.workdir / "tokenizer"
        if is_writer() and not kept.exists():
            draft = kept.with_name(f"{kept.name}.draft")
            shutil.rmtree(draft, ignore_errors=True)  # of a run that was killed here
            self._new_tokenizer().save(draft)
            draft.rename(kept)
        barrier("tokenizer")
        return Tokenizer.from_dir(kept, self.model_family)

    def _new_tokenizer(self) -> Tokenizer:
        if self.job.tokenizer or self.job.model.init_from:
            return Tokenizer.from_dir(self.job.tokenizer or self.job.model.init_from, self.model_family)
        texts = [text for family in self.families for text in family.corpus(self.section(family))]
        texts += self.imported.texts()
        own = (family.phrases_for(self.section(family)) for family in self.families)
        phrases = common_phrases().union(*own)
        return train_tiny_tokenizer(texts, longest_first(phrases), self.job.tokenizer_size, self.model_family)

    @cached_property
    def model_family(self) -> ModelFamily:
        """The model's family: that of the config.json of `job.model.init_from`, else the preset's."""
        if self._kept_config.exists():
            return hf_family(read_json(self._kept_config), where=str(self._kept_config))
        if source := self.job.model.init_from:
            path = epath.Path(source) / "config.json"
            return hf_family(read_json(path), where=str(path))
        return family_of(preset(self.job.model.preset))

    @cached_property
    def buckets(self) -> Buckets:
        """Allowed lengths of training batches."""
        return Buckets(*self._sizes, self.model_family.images)

    @cached_property
    def packing(self) -> Budget | None:
        """What a packed row holds; None where rows are padded."""
        packing = self.job.packing
        if not packing.tokens:
            return None
        return Budget(packing.tokens, packing.vision_rows, packing.patches, self.model_family.images)

    @cached_property
    def model_config(self) -> ModelConfig:
        """That of `job.model.init_from`, else the preset; one that is no published size takes vocabulary and
        special ids from the tokenizer."""
        job, special = self.job, self.tokenizer.special
        fields: dict[str, Any] = dict(
            dtype=job.model.dtype,
            param_dtype=job.model.param_dtype,
            remat=job.model.remat,
            attention=job.model.attention,
            context_parallel=job.mesh.context_parallel,
        )
        if self._kept_config.exists():
            return config_from_hf(read_json(self._kept_config), where=str(self._kept_config), **fields)
        if job.model.init_from:
            return open_hf(job.model.init_from, **fields)[0]
        if job.model.preset not in published_sizes():
            fields |= dict(vocab_size=-(-self.tokenizer.vocab_size // 8) * 8, **special.config_fields())
        return preset(job.model.preset, **fields)

    @property
    def _kept_config(self) -> epath.Path:
        return epath.Path(self.workdir) / "model" / "config.json"

    def keep_model_config(self) -> None:
        """Copies the config.json of `model.init_from` to the workdir, which then opens without it."""
        source = self.job.model.init_from
        if source and is_writer() and not self._kept_config.exists():
            self._kept_config.parent.mkdir(parents=True, exist_ok=True)
            decided = {"tie_word_embeddings": open_hf(source)[0].tie_word_embeddings}  # by the weights
            values = read_json(epath.Path(source) / "config.json") | decided
            if "text_config" in values:
                values["text_config"] = values["text_config"] | decided
            write_json(self._kept_config, values)

    @property
    def has_first_weights(self) -> bool:
        """Whether the first stage resumes from a checkpoint, so that `model.init_from` is not read again."""
        section, folder = self.job.cold_start, self.workdir / "cold_start"
        parts = [part / "checkpoints" for part in (folder, folder / "perception")]
        steps = [CheckpointStore(part).latest_step() for part in parts if part.exists()]
        if section.optimizer.lora_rank:  # the weights beside the factors are read until the stage is done
            return bool(steps) and (steps[0] or 0) >= (stage_steps(folder, section) or math.inf)
        return any(step is not None for step in steps)

    @property
    def can_start_anew(self) -> bool:
        """Whether the parameters before training can be made: random ones, or those of `model.init_from`."""
        source = self.job.model.init_from
        return not any_host(bool(source) and not epath.Path(source).is_dir())

    @property
    def has_tokenizer(self) -> bool:
        """Whether the workdir holds its tokenizer."""
        return (self.workdir / "tokenizer").exists()

    @cached_property
    def _abstract(self) -> tuple[nnx.GraphDef, Any]:
        return nnx.split(nnx.eval_shape(self._new_model))

    def _new_model(self) -> Model:
        return build(self.model_config, self.job.seed)

    @property
    def graphdef(self) -> nnx.GraphDef:
        """The model's structure, for `nnx.merge`."""
        return self._abstract[0]

    def initial_params(self) -> Any:
        """The parameters of `job.model.init_from`, else random ones from the job's seed, on the mesh."""
        model = self.job.model
        if model.init_from:
            params = import_hf(model.init_from, param_dtype=model.param_dtype)[1]
        else:
            params = nnx.split(self._new_model())[1]
        return place(params, param_shardings(params, self.mesh))

    @cached_property
    def abstract_params(self) -> Any:
        """Shapes and shardings of the parameters, without values."""
        return jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            self._abstract[1],
            param_shardings(self._abstract[1], self.mesh),
        )

    @property
    def parameter_count(self) -> int:
        """How many numbers the model has."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.abstract_params))

    @cached_property
    def soft_drawing(self) -> SoftDrawing | None:
        """The term of the SFT loss that compares drawings; None where its weight is 0 or nothing is drawn."""
        section = self.job.soft_drawing
        return SoftDrawing(section, self.tokenizer) if section.weight and self.settings.draw else None

    def marked(self, source: Sequence[Encoded]) -> Sequence[Encoded]:
        """Training examples, marked for `soft_drawing` where that is on."""
        return MappedSource(source, self.soft_drawing.mark) if self.soft_drawing else source

    @property
    def matmul_parameters(self) -> int:
        """Numbers that each token is multiplied with: the language model and its head, not the token table.

        The vision tower is left out, whose patches are not counted as tokens.
        """
        params = self.abstract_params
        parts = [decoder_layers(params), output_head(params, self.model_config)]
        return sum(leaf.size for leaf in jax.tree.leaves(parts))

    @cached_property
    def suppressed(self) -> np.ndarray:
        """[v] bool, the tokens a model may not write: special ones except the ends of a turn, and padding."""
        return suppressed_tokens(self.tokenizer, self.model_config.vocab_size)

    def engine(self, sampling: SamplingSection) -> Engine:
        """The rollout engine for a sampling setting; compiled once."""
        if sampling not in self._engines:
            self._engines[sampling] = Engine(
                self.model_config,
                self.graphdef,
                self.tokenizer,
                self.suppressed,
                self.job.engine,
                sampling,
                self.job.buckets.patches,
                self.mesh.local_mesh,
            )
        return self._engines[sampling]

    @cached_property
    def host(self) -> tuple[int, int]:
        """(number, count): this host feeds the number-th of count equal parts of a batch."""
        return host_rows(self.mesh)

    def check_example(self, example: Encoded, what: str = "an example") -> None:
        """Raises DataError, naming it, for an example that no training row can hold."""
        if self.packing:
            return check_fits(example, self.packing, what)
        pictures = patch_counts(example.grids)
        for axis, length in (
            ("tokens", len(example.ids)),
            ("images", len(pictures)),
            ("patches", max(pictures, default=0)),
        ):
            try:
                self.buckets.fit(axis, length)
            except DataError as error:
                raise DataError(f"{what}: {error}") from None

    def batches(
        self, sources: Sequence, weights: Sequence[float], *, seed: int, batch: int
    ) -> Iterator[Batch]:
        """This host's training batches, packed when the job says so; see `tasks.pipeline.batches`.

        An example that can't be made or is too long is replaced by the next, and named in the log.
        """
        for source in sources:
            check_some(source, self.check_example)
        fitting = [Fitting(source, self.check_example) for source in sources]
        return batches(
            fitting,
            weights,
            seed=seed,
            batch=batch,
            buckets=self.buckets,
            packing=self.packing,
            lookahead=self.job.packing.lookahead,
            share=self.host,
            gather=gather,
        )

    def sample(
        self,
        sampling: SamplingSection,
        params: Any,
        requests: Sequence[Request],
        key: jax.Array,
        progress: Callable[[int], None] | None = None,
    ) -> list[Trajectory]:
        """Answers `requests` on this host's devices; `params` in the training layout."""
        return self.engine(sampling).generate(params, requests, key, progress)

    def generate(
        self,
        sampling: SamplingSection,
        params: Any,
        requests: Sequence[Request],
        key: jax.Array,
        progress: Callable[[int], None] | None = None,
    ) -> list[Trajectory]:
        """Answers `requests`, each host its share; all hosts get all the trajectories, in order.

        Raises:
          Stopped: SIGTERM came, on a single host; nothing of these conversations is kept.
        """
        number, count = self.host
        if count == 1:

            def look_up(done: int) -> None:
                if interrupt.asked_here():
                    raise Stopped("stopped while conversations were sampled")
                if progress:
                    progress(done)

            return self.sample(sampling, params, requests, key, look_up)
        mine = self.sample(sampling, params, requests[number::count], key, progress)
        everyones = gather_bytes(pickle.dumps([t.to_bytes() for t in mine]))
        shares = [deque(pickle.loads(data)) for data in everyones]
        found: list[Trajectory] = []
        for i, request in enumerate(requests):
            share = shares[i % count]
            found += [Trajectory.from_bytes(share.popleft()) for _ in range(request.samples)]
        return found

    @cached_property
    def families(self) -> tuple[Family, ...]:
        """The job's tasks; none when it lives on imported data alone."""
        if len(set(self.job.tasks)) < len(self.job.tasks):
            raise ConfigError(f"config.tasks={self.job.tasks!r}: name each task once")
        if not self.job.tasks and not self.imported.stored:
            raise ConfigError("config.tasks: name at least one task, or imported data in config.data")
        return tuple(map(get_family, self.job.tasks))

    def section(self, family: Family) -> Any:
        """The job's settings of a family; None where it has no section."""
        return getattr(self.job, family.name, None)

    def specs(self, split: str) -> list[tuple[Family, Any]]:
        """Each family with its specification of a split."""
        return [(family, family.spec(self.section(family), split)) for family in self.families]

    @cached_property
    def imported(self) -> Imported:
        """The rows that `config.data` names."""
        return Imported(self.job)

    # Questions of the RL split that reflection samples and those that RL trains on never meet.
    RL_SEEDS = 0
    REFLECT_SEEDS = 1 << 30
    # Where the questions of a stage come from: the key of `config.data`, or the tasks' split and first seed.
    ASKED: ClassVar = {
        "rl": ("rl", RL_SEEDS),
        "reflect": ("rl", REFLECT_SEEDS),
        "synthesis": ("train", REFLECT_SEEDS),
    }

    def rows(self, split: str, count: int, *, first: int = 0) -> list[Row]:
        """`count` different rows of a split, the families in turn, each from seed `first` on."""
        each = -(-count // len(self.families))
        parts = [list(family.rows(spec, each, first)) for family, spec in self.specs(split)]
        return [row for turn in zip(*parts, strict=True) for row in turn][:count]

    def questions(self, stage: str, count: int, first: int = 0) -> list[Row]:
        """`count` questions that a stage (rl, reflect, synthesis) samples answers to, from number `first` on.

        They are the imported ones where `config.data` names some, in an order of their own each time round;
        else those of the tasks. Questions of the tasks that two stages ask are never the same.
        """
        use = QUESTIONS[stage]
        if use in self.imported.stored:
            usable = self._usable(use, getattr(self.job, stage).sampling)
            return [self.imported.row(use, number, usable) for number in range(first, first + count)]
        if not self.families:
            raise ConfigError(f"config.data.{use}: name imported rows, as config.tasks is empty")
        split, seeds = self.ASKED[stage]
        return self.rows(split, count, first=seeds + first)

    def question_source(self, stage: str) -> tuple[int, str]:
        """How many questions a stage (see `questions`) has before they repeat (0: no end), and in words."""
        use = QUESTIONS[stage]
        if use in self.imported.stored:
            count = len(self._usable(use, getattr(self.job, stage).sampling))
            return count, f"{count:,} imported questions ({', '.join(self.job.data.folders(use))})"
        return 0, f"new questions, made here, of {', '.join(self.job.tasks)}"

    def _usable(self, use: str, sampling: SamplingSection) -> np.ndarray:
        """Numbers of a key's imported rows that can be read and that the engine has room for."""
        if use not in self._usable_numbers:
            engine, job, pixels = self.engine(sampling), self.job, self.imported.pixels(use)

            def check(stored: StoredRow) -> None:
                engine.check(self._request(stored.row(*pixels, job.data.frames), 0, 1))

            limits = {
                "data": self.imported.digest(use),
                "room": (sampling.max_tokens, job.engine.prompt_tokens, job.engine.prompt_images),
                "pictures": (job.buckets.patches, *pixels, job.data.frames),
                "drawing": to_dict(job.drawing),
            }
            rows, name = self.imported.stored[use], f"config.data.{use}"
            begun = (self.workdir / _BEGUN.get(use, "eval")).exists()
            numbers = usable_rows(
                rows, check, name=name, folder=self.workdir, limits=limits, purpose="asked", begun=begun
            )
            self._usable_numbers[use] = np.array(numbers)
        return self._usable_numbers[use]

    def look_at_data(self, stages: Sequence[str]) -> None:
        """Finds the imported rows that unfinished stages can use, before the first of them begins.

        Raises:
          DataError: a stage has none.
        """
        for stage, use in QUESTIONS.items():
            name = "synthesize" if stage == "synthesis" else stage
            sampled = not (stage == "reflect" and self.job.data.reflect_traces)
            if name in stages and sampled and use in self.imported.stored:
                self._usable(use, getattr(self.job, stage).sampling)

    def question(self, stage: str, source: tuple[str, int]) -> Row:
        """The question of a stage whose `Row.source` this is; DataError where there is none."""
        name, number = source
        if name == f"data.{QUESTIONS[stage]}":
            return self.imported.stored_row(QUESTIONS[stage], number)
        for family, spec in self.specs(self.ASKED[stage][0]):
            if family.name == name:
                return family.sourced_row(spec, number)
        raise DataError(f"{stage}: no question comes from {name!r}; config.tasks or config.data has changed")

    def validation_rows(self, count: int) -> list[Row]:
        """Held-out rows of the tasks; without tasks, some of the imported benchmarks'."""
        if self.families:
            return self.rows("val", count)
        if "benchmarks" not in self.imported.stored:
            raise ConfigError("config.data.benchmarks: name one to validate on, as config.tasks is empty")
        usable = self._usable("benchmarks", self.job.eval.sampling)
        numbers = range(min(count, len(usable)))
        return [self.imported.row("benchmarks", number, usable) for number in numbers]

    def ood_rows(self, count: int) -> list[Row]:
        """`count` rows unlike the trained ones, an equal part of each family."""
        each = -(-count // len(self.families))
        parts = [family.ood_rows(self.section(family), each) for family in self.families]
        return [row for part in parts for row in part][:count]

    def key(self, purpose: str, step: int = 0) -> jax.Array:
        """The random key of a step, from the job's seed."""
        key = jax.random.fold_in(jax.random.key(self.job.seed), zlib.crc32(purpose.encode()) & 0x7FFFFFFF)
        return jax.random.fold_in(key, step)

    def requests(
        self, rows: Sequence[Row], *, samples: int = 1, seed: int = 0, stop_on_repeat: bool = True
    ) -> list[Request]:
        """Rows as questions to the engine, each sample with a random stream of its own from `seed` on.

        With `stop_on_repeat`, as in training, a turn that only draws what is there ends the conversation.
        """
        numbers = enumerate(rows)
        return [self._request(row, seed + i * samples, samples, stop_on_repeat) for i, row in numbers]

    def _request(self, row: Row, seed: int, samples: int, stop_on_repeat: bool = True) -> Request:
        family = next((f for f in self.families if f.name == row.meta.get("family")), None)
        plain = {
            "id": row.id,
            "question": row.question,
            "answer": row.answer,
            "question_type": row.question_type,
            "options": list(row.options),
            "data_type": row.data_type,
            "meta": {k: v for k, v in row.meta.items() if _is_plain(v)},
            "truth": family.truth(row) if family else [],
            "source": None if row.source is None else list(row.source),
        }
        settings = drawing_settings(self.job, row.data_type, self.prompts, self.model_family)
        settings = dataclasses.replace(settings, stop_on_repeat=stop_on_repeat)
        return Request(plain, lambda: row.session(settings), seed, samples)

    def reward(self, trajectory: Trajectory) -> dict[str, float]:
        """Reward parts of a finished conversation, under the job's weights."""
        row, weights = trajectory.row, dict(self.job.rl.rewards)
        settings = RewardSettings(
            accuracy_weight=weights.pop("accuracy", 0.0),
            format_weight=weights.pop("format", 0.0),
            must_draw=self.job.rl.must_draw,
            extra=tuple(weights.items()),
            tools=self.settings.tools if self.settings.draw else (),
        )
        return score(
            trajectory.texts,
            trajectory.turns,
            answer=row["answer"],
            question_type=row["question_type"],
            options=row["options"],
            meta=row["meta"],
            settings=settings,
        )


def _is_plain(value: Any) -> bool:
    """Whether a row's extra value goes with a conversation: numbers, texts, and lists of them."""
    items = value if isinstance(value, (list, tuple)) else [value]
    return all(isinstance(item, (str, int, float, bool)) for item in items)
