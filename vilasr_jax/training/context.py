"""What every stage of a job shares: tokenizer, model, mesh, drawing settings, task rows."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from vilasr_jax.config import JobConfig, SamplingSection
from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.models.qwen2_5_vl import ModelConfig, Qwen2_5_VL, preset
from vilasr_jax.parallel import make_mesh, replicated
from vilasr_jax.processing import Buckets, Tokenizer, train_tiny_tokenizer
from vilasr_jax.rollout import Engine, Request
from vilasr_jax.tasks import Row
from vilasr_jax.tasks.maze import MazeSpec, corpus, make_maze_row, template_phrases


class Context:
    """A job's fixed parts, each made when first needed.

    Args:
      job: the configuration.
      workdir: the run's folder; tokenizer files are kept there.
    """

    def __init__(self, job: JobConfig, workdir: Path):
        self.job, self.workdir = job, workdir
        self.mesh = make_mesh(job.mesh)
        self.buckets = Buckets(job.buckets.tokens, job.buckets.images, job.buckets.patches)
        self.settings = DrawingSettings(
            style=job.drawing.style,
            prompt=job.drawing.prompt,
            max_turns=job.drawing.max_turns,
            max_images=job.drawing.max_images,
            draw=job.cold_start.format == "drawing",
        )
        self._engines: dict[SamplingSection, Engine] = {}

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Read from the workdir, else from `job.tokenizer`, else a tiny one trained on the task's text."""
        kept = self.workdir / "tokenizer"
        if kept.exists():
            return Tokenizer.from_dir(kept)
        if self.job.tokenizer:
            tokenizer = Tokenizer.from_dir(self.job.tokenizer)
        else:
            specs = (self.maze("train"), self.maze("ood", grid=self.job.maze.ood_grid))
            texts = [text for spec in specs for text in corpus(spec)]
            tokenizer = train_tiny_tokenizer(texts, template_phrases(), self.job.tokenizer_size)
        tokenizer.save(kept)
        return tokenizer

    @cached_property
    def model_config(self) -> ModelConfig:
        """The preset, with the vocabulary and special ids of the tokenizer where the preset is for any."""
        job, special = self.job, self.tokenizer.special
        fields: dict[str, Any] = dict(
            dtype=job.model.dtype, param_dtype=job.model.param_dtype, remat=job.model.remat
        )
        if job.model.preset == "tiny":
            fields |= dict(
                vocab_size=-(-self.tokenizer.vocab_size // 8) * 8,
                image_token_id=special.image_pad,
                video_token_id=special.video_pad,
                vision_start_token_id=special.vision_start,
                vision_end_token_id=special.vision_end,
                bos_token_id=special.endoftext,
                eos_token_id=special.im_end,
            )
        return preset(job.model.preset, **fields)

    @cached_property
    def _split(self) -> tuple[nnx.GraphDef, Any]:
        return nnx.split(Qwen2_5_VL(self.model_config, rngs=nnx.Rngs(self.job.seed)))

    @property
    def graphdef(self) -> nnx.GraphDef:
        """The model's structure, for `nnx.merge`."""
        return self._split[0]

    def initial_params(self) -> Any:
        """Fresh random parameters from the job's seed, on the mesh."""
        return jax.device_put(self._split[1], replicated(self.mesh))

    @cached_property
    def suppressed(self) -> np.ndarray:
        """[v] bool, the tokens a model may not write: special ones except the ends of a turn, and padding."""
        mask = np.zeros(self.model_config.vocab_size, bool)
        mask[self.tokenizer.suppressed_ids] = True
        mask[self.tokenizer.vocab_size :] = True
        mask[[self.tokenizer.special.im_end, self.tokenizer.special.endoftext]] = False
        return mask

    def engine(self, sampling: SamplingSection) -> Engine:
        """The rollout engine for a sampling setting; compiled once."""
        if sampling not in self._engines:
            self._engines[sampling] = Engine(
                self.model_config, self.graphdef, self.tokenizer, self.suppressed, self.job.engine, sampling,
                self.job.buckets.patches, self.mesh,
            )
        return self._engines[sampling]

    def maze(self, split: str, **changes: Any) -> MazeSpec:
        """The maze specification of a split."""
        maze = self.job.maze
        spec = MazeSpec(
            grid=maze.grid,
            cell=maze.cell,
            moves=(maze.min_moves, maze.max_moves),
            wall_density=maze.wall_density,
            split=split,
        )
        return dataclasses.replace(spec, **changes)

    def request(self, row: Row, seed: int, samples: int = 1) -> Request:
        """A row as a question to the engine."""
        plain = {
            "id": row.id,
            "question": row.question,
            "answer": row.answer,
            "question_type": row.question_type,
            "options": list(row.options),
            "data_type": row.data_type,
            "meta": {k: v for k, v in row.meta.items() if isinstance(v, (str, int, float, bool))},
        }
        return Request(plain, lambda: row.session(self.settings), seed, samples)

    def maze_rows(self, spec: MazeSpec, first: int, count: int) -> list[Row]:
        """`count` rows of a split, from seed `first` on."""
        return [make_maze_row(spec, seed) for seed in range(first, first + count)]
