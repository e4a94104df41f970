"""The training stages and their optimiser."""

from __future__ import annotations

from dataclasses import dataclass, field

from vilasr_jax.config.fields import setting
from vilasr_jax.config.sampling import SamplingSection
from vilasr_jax.errors import ConfigError

GROUPS = ("vision", "merger", "language")  # groups of parameters
SFT_LOSSES = ("conversation_mean", "token_mean")  # the first is the published one
POLICY_LOSSES = ("trajectory_mean", "token_mean", "gspo")
OVERLONG = ("keep", "mask")


@dataclass(frozen=True)
class OptimizerSection:
    """An Optax optimiser and its learning-rate schedule."""

    name: str = setting("adamw", choices=("adamw", "muon"))
    learning_rate: float = 1e-5
    schedule: str = setting("cosine", choices=("cosine", "constant"))
    warmup_fraction: float = 0.1  # fraction of the stage's steps
    final_fraction: float = 0.0  # fraction of the peak learning rate at the end of a cosine
    weight_decay: float = 0.0
    clip_norm: float = 1.0  # 0: off
    b1: float = 0.9
    b2: float = 0.999
    freeze: tuple[str, ...] = setting((), choices=GROUPS)  # groups of weights that are not trained
    vision_rate: float = 1.0  # multiplies the learning rate of the vision tower
    merger_rate: float = 1.0  # multiplies the learning rate of the merger
    lora_rank: int = 0  # LoRA: trains factors of this rank instead of the decoder's matrices; 0: off
    lora_alpha: float = 16.0  # LoRA: the addition is multiplied by alpha / rank
    lora_base: str = setting("", choices=("", "int8"))  # LoRA: how the frozen weights are held
    spike: float = 0.0  # skip an update whose gradient norm is this many times the running mean; 0: never
    max_skipped: int = 20  # consecutive skipped updates (not finite, or a spike) before the run stops

    def check(self, path: str) -> None:
        """Raises ConfigError when nothing is left to train, or for LoRA's settings without LoRA."""
        if set(self.freeze) >= set(GROUPS):
            raise ConfigError(f"{path}.freeze holds every group: nothing is left to train")
        if self.lora_base and not self.lora_rank:
            raise ConfigError(
                f"{path}.lora_base={self.lora_base!r} is for LoRA: set {path}.lora_rank, or leave it out"
            )


@dataclass(frozen=True)
class SoftDrawingSection:
    """An optional SFT term: the expected drawing against the true one (vilasr_jax.training.soft_drawing)."""

    weight: float = 0.0  # relative to the cross entropy; 0: off
    canvas: int = setting(
        32, at_least=8
    )  # pixels per side that drawings are compared on; an image is shrunk to it
    softness: float = setting(2.0, above=0)  # canvas pixels over which an edge fades
    line_width: float = setting(4.0, at_least=1)  # canvas pixels
    annotations: int = setting(64, at_least=1)  # annotations compared per conversation (row of a batch)


@dataclass(frozen=True)
class ColdStartSection:
    """Stage 1: supervised fine-tuning on drawing traces."""

    perception_steps: int = 0  # before the traces: single turns about marked images, as pre-training gives
    perception_batch: int = 32
    perception_optimizer: OptimizerSection = field(default_factory=OptimizerSection)
    traces: int = 33000  # expert traces of config.tasks; the stage repeats them
    dataset: str = ""  # a folder of `vilasr data make` to read traces from; empty: generated on the fly
    slip_fraction: float = 0.0  # fraction of the traces with one deliberate slip, corrected in the next turn
    format: str = setting("drawing", choices=("drawing", "text", "direct"))  # text and direct are controls
    steps: int = 3000
    epochs: float = 0.0  # passes over the conversations; 0: `steps` says how long
    batch: int = 32
    loss: str = setting("conversation_mean", choices=SFT_LOSSES)
    accumulate: int = 1  # micro-batches per batch
    optimizer: OptimizerSection = field(default_factory=OptimizerSection)
    validate_every: int = 0  # steps; 0: never
    save_every: int = 100


@dataclass(frozen=True)
class ReflectSection:
    """Stage 2: reflective rejection sampling, then supervised fine-tuning on the accepted conversations."""

    questions: int = setting(4000, at_least=1)
    samples: int = setting(4, at_least=1)  # conversations per question
    kept_fraction: float = 1.0  # fraction of a training batch; the others are cold-start traces
    sampling: SamplingSection = field(default_factory=SamplingSection)
    steps: int = 300
    epochs: float = 0.0  # passes over those conversations; 0: `steps` says how long
    batch: int = 32
    loss: str = setting("conversation_mean", choices=SFT_LOSSES)
    accumulate: int = 1
    optimizer: OptimizerSection = field(default_factory=OptimizerSection)
    shard: int = setting(256, at_least=1)  # questions per file of sampled traces
    save_every: int = 100


@dataclass(frozen=True)
class RLSection:
    """Stage 3: GRPO, with the published defaults."""

    steps: int = 1000  # rollout batches
    epochs: float = 0.0  # passes over config.data.questions; 0: `steps` says how long
    prompts: int = setting(32, at_least=1)  # questions per rollout batch
    group: int = 8  # trajectories per question
    updates: int = 2  # optimiser updates per rollout batch
    micro_batch: int = 32  # trajectories (packed: rows) per gradient call
    sampling: SamplingSection = field(default_factory=SamplingSection)
    clip_low: float = 0.2
    clip_high: float = 0.3
    dual_clip: float = 3.0
    advantage: str = setting("grpo", choices=("grpo", "dr_grpo", "rloo"))
    loss: str = setting("trajectory_mean", choices=POLICY_LOSSES)
    kl_weight: float = 0.0  # weight of the KL to the policy before the stage; 0: no reference model
    entropy_weight: float = 0.0  # weight of an entropy bonus
    old_logprobs: str = setting(
        "rollout", choices=("rollout", "trained")
    )  # the ratio's denominator; trained: computed before the first update
    importance_cap: float = 0.0  # truncated importance sampling, rollout to training logprobs; 0: off
    refill: int = 0  # rounds of more questions in place of groups with equal rewards; 0: those groups stay
    overlong: str = setting(
        "keep", choices=OVERLONG
    )  # conversations cut off at a length limit; mask: no part in the loss
    overlong_buffer: int = 0  # tokens before sampling.max_tokens in which the penalty grows; 0: off
    overlong_penalty: float = 1.0  # subtracted at the end of that buffer
    rewards: dict[str, float] = field(
        default_factory=lambda: {"accuracy": 0.5, "format": 0.5, "drawing": 0.0, "drew": 0.0, "repeat": 0.0},
        metadata={"at_least": None},
    )  # weight of each registered reward; a penalty's is negative
    must_draw: bool = False  # an answer without any drawing earns nothing
    recovery: float = (
        0.0  # fraction of the questions that begin with the first turns of a failed conversation
    )
    sample_every: int = 0  # steps between those whose first conversations are saved to look at; 0: none
    optimizer: OptimizerSection = field(
        default_factory=lambda: OptimizerSection(learning_rate=1e-6, schedule="constant", weight_decay=0.01)
    )
    validate_every: int = 0
    save_every: int = 10

    def check(self, path: str) -> None:
        """Raises ConfigError for values that can't work with each other."""
        sampling = self.sampling
        if sampling.top_p < 1 or sampling.top_k or sampling.temperature <= 0:
            raise ConfigError(
                f"{path}.sampling: temperature={sampling.temperature:g}, top_p={sampling.top_p:g}, top_k="
                f"{sampling.top_k}; the policy gradient is that of the full distribution, which needs a "
                "temperature above 0, top_p=1.0 and top_k=0"
            )
        if self.group < 2:
            raise ConfigError(f"{path}.group={self.group}: samples are compared in groups of 2 at least")
        if not 1 <= self.updates <= self.prompts * self.group:
            raise ConfigError(
                f"{path}.updates={self.updates}: at least 1, at most prompts x group = "
                f"{self.prompts * self.group}"
            )
