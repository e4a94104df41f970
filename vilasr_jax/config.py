"""Typed configuration of every job.

A file in `configs/` builds a `JobConfig` and returns `to_config_dict(job)`: a locked
`ml_collections.ConfigDict` that the command line overrides key by key. `from_config_dict` reads it back
strictly: a key that does not exist, or a value of another type, is a `ConfigError`.
"""

from __future__ import annotations

import dataclasses
import runpy
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_collections

from vilasr_jax.errors import ConfigError
from vilasr_jax.models import default_family

_IMAGES = default_family().images


@dataclass(frozen=True)
class ModelSection:
    """Which backbone, and where its first weights come from."""

    preset: str = "tiny"  # tiny, 3b, 7b, 32b, 72b, or a module that holds a CONFIG (my_package.my_size)
    init_from: str = ""  # a Hugging Face folder; empty: random weights from the job's seed
    random_weights: bool = False  # a published size without init_from is meant, not forgotten
    dtype: str = "float32"  # compute
    param_dtype: str = "float32"  # masters
    remat: str = "none"  # what the backward pass computes again: none, dots, attention, full
    attention: str = "xla"  # a backend of models/attention_backends: xla; splash on TPUs


@dataclass(frozen=True)
class ImageSection:
    """Size limits of an image, in pixels of area after both sides are rounded for the model."""

    min_pixels: int = _IMAGES.factor**2
    max_pixels: int = _IMAGES.max_pixels


@dataclass(frozen=True)
class BucketSection:
    """Static shapes: every length is rounded up to one of these."""

    tokens: tuple[int, ...] = (128, 256, 384, 512)  # a whole conversation
    images: tuple[int, ...] = (1, 8)  # images a conversation
    patches: tuple[int, ...] = (100,)  # patches an image


@dataclass(frozen=True)
class PackingSection:
    """Several conversations in one training row. A stage's batch and micro_batch then count rows."""

    tokens: int = 0  # of a row; 0: off, a conversation has a row of its own
    vision_rows: int = 8  # of patches, in a row
    patches: int = 1024  # of a vision row; the largest image must fit
    lookahead: int = 16  # conversations that each row is chosen from


@dataclass(frozen=True)
class DrawingSection:
    """The drawing tools, as the model sees them."""

    prompt: str = "vilasr_jax"  # ours: vilasr_jax, short; published (that of data.traces); a file or folder
    style: str = "clear"  # clear, published (as released weights were trained on), maze
    tools: tuple[str, ...] = ("object_mapper", "path_tracer")  # also erase, zoom, point, text, select_frame
    max_turns: int = 10  # assistant turns a conversation
    maze_turns: int = 0  # the same for rows of data type "maze"; 0: max_turns
    max_images: int = 45  # base and drawn images a conversation


@dataclass(frozen=True)
class MazeSection:
    """The synthetic maze task (vilasr_jax.tasks.maze)."""

    grid: int = 5  # cells a side
    cell: int = 28  # pixels a cell
    min_moves: int = 3
    max_moves: int = 6
    wall_density: float = 0.3  # share of inner edges that carry a wall
    kinds: tuple[str, ...] = ("end",)  # of question: end (where moves end), route (which lead to the goal)
    ood_grid: int = 6  # cells a side of the bigger out-of-distribution mazes


@dataclass(frozen=True)
class SceneSection:
    """A synthetic task of rendered scenes: static, video or multi-view (vilasr_jax.tasks)."""

    level: str = "easy"  # tiny, tiny_wide, easy, medium, hard
    kinds: tuple[str, ...] = ()  # of question; empty: all that the level has


@dataclass(frozen=True)
class OptimizerSection:
    """An Optax optimiser and its learning-rate schedule."""

    name: str = "adamw"  # adamw, muon
    learning_rate: float = 1e-5
    schedule: str = "cosine"  # cosine, constant
    warmup_share: float = 0.1  # of the stage's steps
    final_share: float = 0.0  # of the peak learning rate, at the end of a cosine
    weight_decay: float = 0.0
    clip_norm: float = 1.0  # 0: off
    b1: float = 0.9
    b2: float = 0.999
    freeze: tuple[str, ...] = ()  # groups that stay as they are: vision, merger, language
    vision_rate: float = 1.0  # of the learning rate, for the vision tower
    merger_rate: float = 1.0  # of the learning rate, for the merger
    lora_rank: int = 0  # train additions of this rank to the language model's matrices instead; 0: off
    lora_alpha: float = 16.0  # the addition counts alpha / rank times
    spike: float = 0.0  # skip an update whose gradient norm is so many times the running mean; 0: never
    max_skipped: int = 20  # updates in a row that are skipped (not finite, or a spike) before the run stops


@dataclass(frozen=True)
class SamplingSection:
    """How tokens are drawn."""

    temperature: float = 1.0  # 0: greedy
    top_p: float = 1.0
    top_k: int = 0  # 0: off
    max_turn_tokens: int = 1024  # sampled tokens a turn
    max_tokens: int = 18432  # prompt, sampled and inserted tokens of a conversation


@dataclass(frozen=True)
class EngineSection:
    """The rollout engine's fixed shapes."""

    slots: int = 128  # conversations alive at once, over all lanes
    lanes: int = 2  # one lane draws on the host while the others compute
    decode_steps: int = 32  # at most so many decode steps a call
    stop_share: float = 0.9  # a decode call ends early when this share of its live rows has stopped
    prompt_tokens: tuple[int, ...] = (128,)  # buckets of a prompt
    insert_tokens: tuple[int, ...] = (64,)  # buckets of a piece of a user turn that goes into the live cache
    prompt_images: tuple[int, ...] = (1,)
    insert_images: tuple[int, ...] = (1,)
    draw_workers: int = 2  # threads
    own_sampling: bool = False  # requests bring their own temperature and top-p, as to a server
    draw_seconds: float = 30.0  # a drawing that takes longer costs its turn an error text; 0: no limit
    draw_wait: float = 5.0  # seconds that other rows wait for a drawing, so that runs repeat bit by bit
    memory_gib: float = 0.0  # of a device, for cache and parameters; 0: what the device has


@dataclass(frozen=True)
class SoftDrawingSection:
    """An optional SFT term: the expected drawing against the true one (vilasr_jax.training.soft_drawing)."""

    weight: float = 0.0  # beside the cross entropy's 1; 0: off
    canvas: int = 32  # pixels a side that drawings are compared on; an image is shrunk to it
    softness: float = 2.0  # canvas pixels over which an edge fades
    line_width: float = 4.0  # canvas pixels
    annotations: int = 64  # of a conversation (a row of a batch) that are compared


@dataclass(frozen=True)
class ColdStartSection:
    """Stage 1: supervised fine-tuning on drawing traces."""

    perception_steps: int = (
        0  # first: dense single-turn looks at marked images (what pre-training gives a big model)
    )
    perception_batch: int = 32
    perception_optimizer: OptimizerSection = field(default_factory=OptimizerSection)
    traces: int = 33000  # expert traces of config.tasks; the stage passes over them again and again
    made: str = ""  # a folder of `vilasr data make`: its traces are read instead of made anew
    slip_share: float = 0.0  # of the traces carry one deliberate slip, corrected in the next turn
    format: str = "drawing"  # drawing; controls: text, direct
    steps: int = 3000
    epochs: float = 0.0  # passes over the conversations; 0: `steps` says how long
    batch: int = 32
    loss: str = "conversation_mean"  # conversation_mean (published), token_mean
    accumulate: int = 1  # parts of a batch that go through the model one after the other
    optimizer: OptimizerSection = field(default_factory=OptimizerSection)
    validate_every: int = 0  # steps; 0: never
    save_every: int = 100


@dataclass(frozen=True)
class ReflectSection:
    """Stage 2: reflective rejection sampling, then supervised fine-tuning on what was kept."""

    questions: int = 4000
    samples: int = 4  # a question
    kept_share: float = 1.0  # of a training batch; the rest are cold-start traces
    sampling: SamplingSection = field(default_factory=SamplingSection)
    steps: int = 300
    epochs: float = 0.0  # passes over the kept conversations; 0: `steps` says how long
    batch: int = 32
    loss: str = "conversation_mean"  # conversation_mean (published), token_mean
    accumulate: int = 1
    optimizer: OptimizerSection = field(default_factory=OptimizerSection)
    shard: int = 256  # questions a file of sampled traces
    save_every: int = 100


@dataclass(frozen=True)
class RLSection:
    """Stage 3: GRPO, with the published defaults."""

    steps: int = 1000  # rollout batches
    epochs: float = 0.0  # passes over config.data.questions; 0: `steps` says how long
    prompts: int = 32  # questions a rollout batch
    group: int = 8  # trajectories a question
    updates: int = 2  # optimiser updates a rollout batch
    micro_batch: int = 32  # trajectories (packed: rows) a gradient call
    sampling: SamplingSection = field(default_factory=SamplingSection)
    clip_low: float = 0.2
    clip_high: float = 0.3
    dual_clip: float = 3.0
    advantage: str = "grpo"  # grpo, dr_grpo, rloo
    loss: str = "trajectory_mean"  # trajectory_mean, token_mean, gspo
    kl_weight: float = 0.0  # of the KL to the policy that the stage started from; 0: no reference model
    entropy_weight: float = 0.0  # of an entropy bonus
    old_logprobs: str = "rollout"  # what the ratio is to: rollout; trained: computed before the first update
    importance_cap: float = 0.0  # truncated importance sampling, rollout to training logprobs; 0: off
    refill: int = 0  # rounds of more questions in place of groups with equal rewards; 0: those groups stay
    overlong: str = "keep"  # conversations cut off at a length limit: keep, or mask (no part in the loss)
    overlong_buffer: int = 0  # tokens before sampling.max_tokens over which reward is taken off; 0: off
    overlong_penalty: float = 1.0  # taken off at the end of that buffer
    rewards: dict[str, float] = field(
        default_factory=lambda: {"accuracy": 0.5, "format": 0.5, "drawing": 0.0, "drew": 0.0, "repeat": 0.0}
    )  # weight of each registered reward; a penalty's is negative
    must_draw: bool = False  # an answer without any drawing earns nothing
    recovery: float = 0.0  # share of the questions that begin with the first turns of a failed conversation
    sample_every: int = 0  # steps between those whose first conversations are saved to look at; 0: none
    optimizer: OptimizerSection = field(
        default_factory=lambda: OptimizerSection(learning_rate=1e-6, schedule="constant", weight_decay=0.01)
    )
    validate_every: int = 0
    save_every: int = 10


@dataclass(frozen=True)
class EvalSection:
    """Held-out questions, answered in full free-running conversations."""

    rows: int = 512
    validation_rows: int = 256
    samples: int = 1  # answers a question
    best: bool = False  # ask, export and open each stage's saved step of the best validation, not its last
    shard: int = 512  # questions after which results are written; a stopped run goes on from there
    benchmark_stages: tuple[str, ...] = ()  # that answer config.data.benchmarks; empty: the last one
    sampling: SamplingSection = field(default_factory=lambda: SamplingSection(temperature=0.75, top_p=0.9))
    gallery: int = 48  # conversations of each stage whose pictures are kept for the report


@dataclass(frozen=True)
class MakeSection:
    """`vilasr data make`: rows of each of config.tasks in each split."""

    train: int = 10_000
    rl: int = 2_000
    val: int = 256
    test: int = 512
    ood: int = 512
    shard: int = 1_000  # rows a file
    workers: int = 2  # processes


@dataclass(frozen=True)
class DataSection:
    """Imported data (folders that `vilasr data import` or `vilasr synthesize` wrote)."""

    root: str = ""  # where relative folders of this section start; empty: where the command runs
    traces: tuple[str, ...] = ()  # recorded conversations for the cold start
    reflect_traces: tuple[str, ...] = ()  # reflect trains on these recorded conversations, samples none
    traces_share: float = 1.0  # of a cold-start batch; the rest are expert traces of config.tasks
    questions: tuple[str, ...] = ()  # rl asks these instead of those of config.tasks
    reflect_questions: tuple[str, ...] = ()  # and reflect these
    share_questions: bool = False  # reflect and rl may ask the same questions
    synthesis_questions: tuple[str, ...] = ()  # and synthesize these
    benchmarks: tuple[str, ...] = ()  # eval answers these too
    traces_pixels: int = 0  # largest area of an image of theirs; 0: config.image.max_pixels
    questions_pixels: int = 0
    benchmarks_pixels: int = 0
    frames: int = 0  # at most so many of a video's images; 0: all

    def folders(self, key: str) -> tuple[str, ...]:
        """The folders that a key names, with `root` before the relative ones.

        >>> DataSection(root="gs://bucket/data", traces=("cold_start", "/mine")).folders("traces")
        ('gs://bucket/data/cold_start', '/mine')
        """
        folders = getattr(self, key)
        if not self.root:
            return folders
        return tuple(f if f.startswith(("/", "gs://")) else f"{self.root.rstrip('/')}/{f}" for f in folders)


@dataclass(frozen=True)
class SynthesisSection:
    """Traces of a teacher (the run's last stage, or `model.init_from`), kept by a published rule."""

    questions: int = 4000
    samples: int = 1  # a question
    rule: str = "cold_start"  # cold_start, reflective
    sampling: SamplingSection = field(default_factory=SamplingSection)
    shard: int = 256  # questions a file


@dataclass(frozen=True)
class MeshSection:
    """Devices along each axis; -1: all that are left."""

    data: int = -1
    fsdp: int = 1
    model: int = 1
    context_parallel: bool = False  # training: the model axis splits the tokens of a row, not widths
    cpu_devices: int = 1  # on a machine without accelerators: virtual devices that share its cores


@dataclass(frozen=True)
class JobConfig:
    """Everything a run depends on; written into its workdir as `config.json`."""

    name: str = ""
    seed: int = 0
    tasks: tuple[str, ...] = ("maze",)  # families, or modules that hold one (my_package.my_task); empty:
    # only imported data (config.data)
    tokenizer: str = ""  # a folder with tokenizer files; empty: a tiny one, trained on the task's own text
    tokenizer_size: int = 512  # of the tiny one
    stages: tuple[str, ...] = ("cold_start", "reflect", "rl", "eval", "export", "report")
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


def read_config(path: str | Path, changes: Mapping[str, Any] | None = None) -> JobConfig:
    """The job of a config file, with some keys changed, as in `{"rl.steps": 9}`.

    Raises:
      ConfigError: there is no such file or key, or a value has another type.
    """
    if not Path(path).is_file():
        raise ConfigError(f"{path}: no such config file")
    config = runpy.run_path(str(path))["get_config"]().to_dict()
    for key, value in (changes or {}).items():
        *sections, name = key.split(".")
        place = config
        for section in sections:
            place = place.get(section)
            if not isinstance(place, dict):
                raise ConfigError(f"config.{key}: there is no section {section!r}")
        place[name] = value
    return from_config_dict(config)


def to_dict(job: Any) -> dict:
    """A config dataclass as plain nested dicts (tuples stay tuples)."""
    return {
        f.name: to_dict(v) if dataclasses.is_dataclass(v := getattr(job, f.name)) else v
        for f in dataclasses.fields(job)
    }


def flatten(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested dicts as one, by dotted key.

    >>> flatten({"rl": {"steps": 9}, "seed": 0})
    {'rl.steps': 9, 'seed': 0}
    """
    items: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{path}.{key}" if path else key
        items |= flatten(value, name) if isinstance(value, dict) else {name: value}
    return items


def differences(job: JobConfig) -> dict[str, tuple[Any, Any]]:
    """Every key of a job: its value, and the default's (None for a key that the defaults do not have)."""
    defaults = flatten(to_dict(JobConfig()))
    return {key: (value, defaults.get(key)) for key, value in flatten(to_dict(job)).items()}


def to_config_dict(job: JobConfig) -> ml_collections.ConfigDict:
    """The locked `ConfigDict` a config file returns."""
    return ml_collections.ConfigDict(to_dict(job)).lock()


def from_config_dict(config: Any) -> JobConfig:
    """Reads a `ConfigDict` (or nested dicts) back; raises `ConfigError` on any unknown key or wrong type."""
    plain = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else config
    return _read(JobConfig, plain, "config")


def _read(cls: type, values: Any, path: str) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys and values, got {values!r}")
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise ConfigError(f"{path}.{key}: no such key; there are: {', '.join(hints)}")
    return cls(**{key: _value(hints[key], value, f"{path}.{key}") for key, value in values.items()})


def _value(kind: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _read(kind, value, path)
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{path}: expected a list, got {value!r}")
        return tuple(_value(item, v, f"{path}[{i}]") for i, v in enumerate(value))
    if typing.get_origin(kind) is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: expected keys and values, got {value!r}")
        item = typing.get_args(kind)[1]
        return {str(key): _value(item, v, f"{path}.{key}") for key, v in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"{path}: expected {kind.__name__}, got {value!r}")
    return value
