"""Where a job's questions come from: its task families, and imported rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vilasr_jax.config import JobConfig, SamplingSection, to_dict
from vilasr_jax.errors import ConfigError, DataError
from vilasr_jax.model_bundle import ModelBundle
from vilasr_jax.models import ModelFamily
from vilasr_jax.parallel import from_writer
from vilasr_jax.rewards import check_answer
from vilasr_jax.rollout import Engine, Request
from vilasr_jax.tasks import Family, Row, get_family
from vilasr_jax.tasks.rows import question_record
from vilasr_jax.tasks.stored import StoredRow, StoredRows
from vilasr_jax.tasks.tokenizer_phrases import SHORT
from vilasr_jax.training.imported_rows import Imported
from vilasr_jax.training.row_filter import sample_numbers, usable_everywhere, usable_rows

# The key of config.data that names a stage's questions.
QUESTIONS = {"rl": "questions", "reflect": "reflect_questions", "synthesis": "synthesis_questions"}
# Without imported ones: the tasks' split, and the seed of the stage's first question. No two stages have one
# in common.
SPLITS = {"rl": ("rl", 0), "reflect": ("rl", 1 << 30), "synthesis": ("train", 1 << 30)}
# The path that exists once a stage has sampled answers: from then on the questions and their order stay.
_BEGUN = {
    "questions": "rl/checkpoints",
    "reflect_questions": "reflect/samples",
    "synthesis_questions": "traces",
}


class Tasks:
    """A job's task families, and the rows that they generate.

    Args:
      job: the configuration.
      imported: rows of the job's folders.
      model_family: gives the family of the job's model.
    """

    def __init__(self, job: JobConfig, imported: Imported, model_family: Callable[[], ModelFamily]):
        self.job, self.imported, self.model_family = job, imported, model_family

    @cached_property
    def families(self) -> tuple[Family, ...]:
        """The families that `config.tasks` names; none when the job uses imported data alone."""
        if len(set(self.job.tasks)) < len(self.job.tasks):
            raise ConfigError(f"config.tasks={self.job.tasks!r}: name each task once")
        if not self.job.tasks and not self.imported.stored:
            raise ConfigError("config.tasks: name at least one task, or imported data in config.data")
        return tuple(map(get_family, self.job.tasks))

    def section(self, family: Family) -> Any:
        """The job's settings of a family, its images as the model reads them; None without a section."""
        section = getattr(self.job, family.name, None)
        return None if section is None else family.fitted(section, self.model_family().images.factor)

    def specs(self, split: str) -> list[tuple[Family, Any]]:
        """Each family with its specification of a split."""
        return [(family, family.spec(self.section(family), split)) for family in self.families]

    def rows(self, split: str, count: int, *, first: int = 0) -> list[Row]:
        """`count` different rows of a split, the families in turn, each from seed `first` on."""
        each = -(-count // len(self.families))
        parts = [list(family.rows(spec, each, first)) for family, spec in self.specs(split)]
        return [row for turn in zip(*parts, strict=True) for row in turn][:count]

    def ood_rows(self, count: int) -> list[Row]:
        """`count` rows unlike the trained ones, an equal part of each family."""
        each = -(-count // len(self.families))
        parts = [family.ood_rows(self.section(family), each) for family in self.families]
        return [row for part in parts for row in part][:count]

    def truth(self, row: Row) -> list[dict[str, Any]]:
        """The right boxes and lines of a row; none when its family does not know them."""
        family = next((f for f in self.families if f.name == row.meta.get("family")), None)
        return family.truth(row) if family else []

    def texts(self) -> list[str]:
        """Sample texts of tasks and imported rows, for a tiny tokenizer."""
        settings = dataclasses.replace(SHORT, coordinates=self.model_family().coordinates)
        texts = [text for family in self.families for text in family.corpus(self.section(family), settings)]
        return [*texts, *self.imported.texts()]

    def phrases(self) -> Iterator[Sequence[str]]:
        """Phrases of each family that are one token each of a tiny tokenizer."""
        return (family.phrases_for(self.section(family)) for family in self.families)


class Questions:
    """The questions of each stage, and the requests to the engine about them.

    Args:
      job: the configuration.
      workdir: the run's folder, where rows that can't be used are noted.
      tasks: generate questions where `config.data` names no imported ones.
      model: says how conversations are held.
      engine: of a sampling setting; says which questions its buckets can hold.
    """

    def __init__(
        self,
        job: JobConfig,
        workdir: Path,
        tasks: Tasks,
        model: ModelBundle,
        engine: Callable[[SamplingSection], Engine],
    ):
        self.job, self.workdir, self.tasks, self.model, self.engine = job, workdir, tasks, model, engine
        self.imported = tasks.imported
        self._usable_numbers: dict[str, np.ndarray] = {}

    def rows(self, stage: str, count: int, first: int = 0) -> list[Row]:
        """`count` questions that a stage ("rl", "reflect", "synthesis") samples answers to.

        They are the imported ones where `config.data` names some, in a new order at each pass; else those of
        the tasks. Questions of the tasks differ between stages.

        Args:
          stage: a key of `QUESTIONS`.
          count: how many.
          first: the number of the first one.
        """
        use = QUESTIONS[stage]
        if use in self.imported.stored:
            usable = self._usable(use, getattr(self.job, stage).sampling)
            return [self.imported.row(use, number, usable) for number in range(first, first + count)]
        if not self.tasks.families:
            raise ConfigError(f"config.data.{use}: name imported rows, as config.tasks is empty")
        split, seed = SPLITS[stage]
        return self.tasks.rows(split, count, first=seed + first)

    def row(self, stage: str, source: tuple[str, int]) -> Row:
        """The question of a stage with this `Row.source`; DataError where there is none."""
        name, number = source
        if name == f"data.{QUESTIONS[stage]}":
            return self.imported.stored_row(QUESTIONS[stage], number)
        for family, spec in self.tasks.specs(SPLITS[stage][0]):
            if family.name == name:
                return family.sourced_row(spec, number)
        raise DataError(f"{stage}: no question comes from {name!r}; config.tasks or config.data has changed")

    def source(self, stage: str) -> tuple[int, str]:
        """How many questions a stage has before they repeat (0: no end), and a description."""
        use = QUESTIONS[stage]
        if use in self.imported.stored:
            count = len(self._usable(use, getattr(self.job, stage).sampling))
            return count, f"{count:,} imported questions ({', '.join(self.job.data.folders(use))})"
        return 0, f"new questions, generated here, of {', '.join(self.job.tasks)}"

    def validation_rows(self, count: int) -> list[Row]:
        """Held-out rows of the tasks; without tasks, some of the imported benchmarks'."""
        if self.tasks.families:
            return self.tasks.rows("val", count)
        if "benchmarks" not in self.imported.stored:
            raise ConfigError("config.data.benchmarks: name one to validate on, as config.tasks is empty")
        usable = self._usable("benchmarks", self.job.eval.sampling)
        numbers = range(min(count, len(usable)))
        return [self.imported.row("benchmarks", number, usable) for number in numbers]

    def check(self, stages: Sequence[str]) -> None:
        """Finds the imported questions that unfinished stages can use, before the first of them begins.

        All rows are looked at, of benchmarks that are only evaluated some of each.

        Raises:
          DataError: a stage has none.
        """
        for stage, use in QUESTIONS.items():
            name = "synthesize" if stage == "synthesis" else stage
            sampled = not (stage == "reflect" and self.job.data.reflect_traces)
            if name in stages and sampled and use in self.imported.stored:
                self._usable(use, getattr(self.job, stage).sampling)
        every = {"cold_start": self.job.cold_start.validate_every, "rl": self.job.rl.validate_every}
        if any(every[name] for name in every if name in stages):
            self.validation_rows(0)
        if "eval" in stages:
            for folder in self.job.data.folders("benchmarks"):
                self._check_benchmark(folder)

    def _check_benchmark(self, folder: str) -> None:
        """Raises DataError when none of some questions of a benchmark can be used."""
        rows, sampling = self.imported.decoded("benchmarks", StoredRows([folder])), self.job.eval.sampling
        some = usable_everywhere(rows, sample_numbers(rows), lambda row: self.check_request(row, sampling))
        if not any(isinstance(row, Row) for row in some):
            reason = f"none of {len(some)} questions looked at can be used; the first: {some[0]}"
            raise DataError(f"config.data.benchmarks: {folder}: {reason}")

    def check_request(self, row: Row, sampling: SamplingSection) -> None:
        """Raises DataError when an engine's buckets can't hold the question."""
        self.engine(sampling).check(self.request(row))

    def _usable(self, use: str, sampling: SamplingSection) -> np.ndarray:
        """[n] int, numbers of a key's imported rows that can be decoded and fit the engine's buckets."""
        if use not in self._usable_numbers:
            job, pixels = self.job, self.imported.pixels(use)
            self.engine(sampling)  # created once, before threads use it

            scored = use != "benchmarks" and job.rl.rewards.get("accuracy", 0) > 0

            def check(stored: StoredRow) -> None:
                row = stored.row(*pixels, job.data.frames, self.model.family)
                self.check_request(row, sampling)
                if scored:
                    check_answer(row.answer, row.question_type, row.options)

            digests = self.imported.digests(use)
            limits = {
                "data": "".join(digests.values()),
                "room": (sampling.max_tokens, job.engine.prompt_tokens, job.engine.prompt_images),
                "pictures": (job.buckets.patches, *pixels, job.data.frames),
                "drawing": to_dict(job.drawing),
                **({"answers": "accuracy"} if scored else {}),
                **self.imported.units(),
            }
            rows, name = self.imported.stored[use], f"config.data.{use}"
            numbers = usable_rows(
                rows,
                check,
                name=name,
                folder=self.workdir,
                limits=limits,
                purpose="used as questions",
                begun=use in _BEGUN and from_writer((self.workdir / _BEGUN[use]).exists),
                folders=[*digests],
            )
            self._usable_numbers[use] = np.array(numbers)
        return self._usable_numbers[use]

    def request(self, row: Row, seed: int = 0, samples: int = 1, stop_on_repeat: bool = True) -> Request:
        """A row as a question to the engine; see `requests`."""
        settings = self.model.settings_for(row.data_type)
        settings = dataclasses.replace(settings, stop_on_repeat=stop_on_repeat)
        record = question_record(row, self.tasks.truth(row))
        return Request(record, lambda: row.session(settings), seed, samples)

    def requests(
        self, rows: Sequence[Row], *, samples: int = 1, seed: int = 0, stop_on_repeat: bool = True
    ) -> list[Request]:
        """Rows as questions to the engine, each sample with a random stream of its own.

        Args:
          rows: the questions.
          samples: conversations about each.
          seed: of the first sample; the next have the next seeds.
          stop_on_repeat: as in training, a turn that only repeats drawings ends the conversation.
        """
        return [self.request(row, seed + i * samples, samples, stop_on_repeat) for i, row in enumerate(rows)]
