"""Sampling: how tokens are drawn, the rollout engine, evaluation and synthesis."""

from __future__ import annotations

from dataclasses import dataclass, field

from vilasr_jax.config.fields import setting


@dataclass(frozen=True)
class SamplingSection:
    """How tokens are drawn."""

    temperature: float = 1.0  # 0: greedy
    top_p: float = 1.0
    top_k: int = 0  # 0: off
    max_turn_tokens: int = setting(1024, at_least=1)  # sampled tokens per turn
    max_tokens: int = setting(18432, at_least=1)  # prompt, sampled and inserted tokens of a conversation


@dataclass(frozen=True)
class EngineSection:
    """The rollout engine's fixed shapes."""

    slots: int = setting(128, at_least=1)  # conversations alive at once, over all lanes and hosts
    lanes: int = setting(2, at_least=1)  # one lane draws on the host while the others compute
    decode_steps: int = setting(32, at_least=1)  # decode steps per call, at most
    stop_fraction: float = 0.9  # a decode call ends early when this fraction of its live rows has stopped
    prompt_tokens: tuple[int, ...] = (128,)  # buckets of a prompt
    insert_tokens: tuple[int, ...] = (64,)  # buckets of a piece of a user turn that goes into the live cache
    prompt_images: tuple[int, ...] = (1,)
    insert_images: tuple[int, ...] = (1,)
    call_rows: int = 0  # rows of a data shard that one call writes; 0: an eighth of its slots, or all of them
    draw_workers: int = setting(2, at_least=1)  # threads that draw
    per_request_sampling: bool = False  # each request has its temperature and top-p, as in a server
    draw_seconds: float = 30.0  # a slower drawing costs its turn an error text; 0: no limit
    draw_wait: float = 5.0  # seconds that other rows wait for a drawing, so that runs repeat bit by bit
    weights: str = setting("", choices=("", "int8"))  # matrices while sampling; empty: in model.dtype
    memory_gib: float = 0.0  # memory of a device for cache and parameters; 0: all of it


@dataclass(frozen=True)
class EvalSection:
    """Held-out questions, answered in free-running conversations."""

    rows: int = 512
    validation_rows: int = 256
    samples: int = setting(1, at_least=1)  # answers per question
    best: bool = (
        False  # evaluate, export and open each stage's saved step of the best validation, not its last
    )
    shard: int = setting(
        512, at_least=1
    )  # questions per results file; a stopped run resumes after the last one
    benchmark_stages: tuple[str, ...] = ()  # stages that answer config.data.benchmarks; empty: the last one
    sampling: SamplingSection = field(default_factory=lambda: SamplingSection(temperature=0.75, top_p=0.9))
    gallery: int = 48  # conversations of each stage with images, and as many more wrong or corrected ones


@dataclass(frozen=True)
class SynthesisSection:
    """Traces of a teacher (the run's last stage, or `model.init_from`), filtered by a published rule."""

    questions: int = 4000
    samples: int = 1  # conversations per question
    rule: str = setting("cold_start", choices=("cold_start", "reflective"))
    sampling: SamplingSection = field(default_factory=SamplingSection)
    shard: int = setting(256, at_least=1)  # questions per file
