"""The configuration of a job: all sections, and the rules between them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from vilasr_jax.config.data import DataSection, DrawingSection, MakeSection, MazeSection, SceneSection
from vilasr_jax.config.fields import setting
from vilasr_jax.config.model import BucketSection, ImageSection, MeshSection, ModelSection, PackingSection
from vilasr_jax.config.sampling import EngineSection, EvalSection, SynthesisSection
from vilasr_jax.config.training import ColdStartSection, ReflectSection, RLSection, SoftDrawingSection
from vilasr_jax.errors import ConfigError

TRAINED = ("cold_start", "reflect", "rl")  # stages with weights of their own, in order
OTHERS = ("synthesize", "eval", "export", "report")
# What `--weights` may say of the weights while a model samples, and the compute dtype that it sets.
WEIGHTS = {"bf16": "bfloat16", "f32": "float32", "int8": ""}


@dataclass(frozen=True)
class JobConfig:
    """Everything a run depends on; written into its workdir as `config.json`."""

    name: str = ""
    seed: int = 0
    tasks: tuple[str, ...] = ("maze",)  # families, or modules that hold one; empty: only imported data
    tokenizer: str = ""  # a folder with tokenizer files; empty: a tiny one, trained on the texts of the tasks
    tokenizer_size: int = 512  # vocabulary size of the tiny tokenizer
    stages: tuple[str, ...] = setting(
        ("cold_start", "reflect", "rl", "eval", "export", "report"), choices=(*TRAINED, *OTHERS)
    )
    model: ModelSection = field(default_factory=ModelSection)
    image: ImageSection = field(default_factory=ImageSection)
    buckets: BucketSection = field(default_factory=BucketSection)
    packing: PackingSection = field(default_factory=PackingSection)
    drawing: DrawingSection = field(default_factory=DrawingSection)
    maze: MazeSection = field(default_factory=MazeSection)
    static: SceneSection = field(default_factory=SceneSection)
    video: SceneSection = field(default_factory=SceneSection)
    multiview: SceneSection = field(default_factory=SceneSection)
    engine: EngineSection = field(default_factory=EngineSection)
    soft_drawing: SoftDrawingSection = field(default_factory=SoftDrawingSection)
    cold_start: ColdStartSection = field(default_factory=ColdStartSection)
    reflect: ReflectSection = field(default_factory=ReflectSection)
    rl: RLSection = field(default_factory=RLSection)
    eval: EvalSection = field(default_factory=EvalSection)
    make: MakeSection = field(default_factory=MakeSection)
    data: DataSection = field(default_factory=DataSection)
    synthesis: SynthesisSection = field(default_factory=SynthesisSection)
    mesh: MeshSection = field(default_factory=MeshSection)

    def check(self, path: str) -> None:
        """Raises ConfigError for values of different sections that can't work with each other."""
        if self.engine.per_request_sampling:
            raise ConfigError(
                f"{path}.engine.per_request_sampling is for servers, whose requests say how to sample"
            )
        if self.soft_drawing.weight and self.drawing.actions != "published":
            raise ConfigError(
                f"{path}.soft_drawing.weight={self.soft_drawing.weight:g} reads drawings of the published "
                f"form alone; set {path}.drawing.actions='published'"
            )
        for name in (stage for stage in TRAINED if stage in self.stages):
            section = getattr(self, name)
            if section.steps < 1 and not section.epochs:
                raise ConfigError(
                    f"{path}.{name}.steps must be at least 1; or leave {name} out of config.stages"
                )
            if name != "cold_start":
                self._check_lengths(path, name, section.sampling.max_tokens)
        tokens, images = self.rl.sampling.max_tokens, self.drawing.max_images
        prompt_tokens, prompt_images = self.engine.prompt_tokens[-1], self.engine.prompt_images[-1]
        fits = prompt_tokens >= tokens and prompt_images >= images
        if "rl" in self.stages and self.rl.recovery and not fits:
            raise ConfigError(
                f"{path}.rl.recovery={self.rl.recovery:g}: a replayed conversation is a prompt of up to "
                f"{tokens} tokens and {images} images, but config.engine.prompt_tokens ends at "
                f"{prompt_tokens} and prompt_images at {prompt_images}"
            )

    def _check_lengths(self, path: str, stage: str, tokens: int) -> None:
        """What a stage samples must fit into what it trains on."""
        where, limit = "the largest training bucket, config.buckets.tokens", self.buckets.tokens[-1]
        if self.packing.tokens:
            where, limit = "a packed row, config.packing.tokens", self.packing.tokens
        if tokens > limit:
            raise ConfigError(f"{path}.{stage}.sampling.max_tokens={tokens} is more than {where}={limit}")
        images, limit = self.drawing.max_images, self.buckets.images[-1]
        if images > limit:
            raise ConfigError(
                f"{path}.drawing.max_images={images} is more than the largest training bucket, "
                f"config.buckets.images={limit}"
            )


def with_weights(job: JobConfig, weights: str) -> JobConfig:
    """The job with other weights while its model samples, one of `WEIGHTS`; "" changes nothing.

    Raises:
      ConfigError: `weights` is none of them.
    """
    if not weights:
        return job
    if weights not in WEIGHTS:
        raise ConfigError(f"weights={weights!r} is none of {', '.join(WEIGHTS)}")
    engine = dataclasses.replace(job.engine, weights="int8" if weights == "int8" else "")
    model = dataclasses.replace(job.model, dtype=WEIGHTS[weights] or job.model.dtype)
    return dataclasses.replace(job, engine=engine, model=model)
