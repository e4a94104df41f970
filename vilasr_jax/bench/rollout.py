"""How fast drawing conversations are sampled: with a cache, with a prefill at each turn, by transformers.

All three hold the same scripted conversations (see `rollout_load`) with the same random weights, greedily,
and draw the same images. The slow ones hold fewer of them: re-prefill as many as there are slots,
transformers one group, in lock-step, as its `generate` does.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import time
from typing import Any

import jax

from vilasr_jax.bench.rollout_load import (
    Load,
    RereadingEngine,
    ScriptedEngine,
    Subject,
    make_engine,
    make_requests,
    make_subject,
)
from vilasr_jax.models import DEFAULT_PRESET, family_of
from vilasr_jax.rollout import Engine, Trajectory

REREAD = "ours, re-prefill"


def bench_rollout(
    load: Load | None = None, subject: Subject | None = None, size: str = DEFAULT_PRESET
) -> dict[str, Any]:
    """Measures the three in one run; prints a table.

    Args:
      load: the conversations.
      subject: the model; by default one of about 30 million parameters.
      size: the small preset of whose family that is.
    """
    load, subject = load or Load(), subject or make_subject(size)
    count = sum(leaf.size for leaf in jax.tree.leaves(subject.params))
    family = family_of(subject.config)
    unit = family.images.factor
    print(
        f"{family.title}, {count / 1e6:.1f}M parameters; {load.questions} questions x {load.group} "
        f"conversations of {load.turns} turns of {load.shortest} to {load.longest} tokens; images of "
        f"{(load.side // unit) ** 2} tokens; {load.slots} slots on {jax.device_count()} "
        f"{jax.devices()[0].platform} devices",
        flush=True,
    )
    ours, trajectories = measure(ScriptedEngine, "ours", load, subject)
    fewer = min(load.questions, max(1, load.slots // load.group))  # enough for all slots
    part = dataclasses.replace(load, questions=fewer)
    records = [ours, measure(RereadingEngine, REREAD, part, subject)[0]]
    records += _transformers(load, subject, trajectories)
    print(
        f"{'':18}{'tokens/s':>10}{'ours x':>8}{'ours x':>9}{'read':>8}{'images':>8}{'first token':>13}\n"
        f"{'':18}{'':10}{'(wall)':>8}{'(cores)':>9}"
    )
    for r in records:
        wall = ours["tokens_per_second"] / r["tokens_per_second"]
        print(
            f"{r['name']:18}{r['tokens_per_second']:10.1f}{wall:8.2f}{_per_token(r) / _per_token(ours):9.2f}"
            f"{r['prefilled']:8.0f}{r['images']:8.2f}{r['first_token']:11.2f} s"
        )
    print(
        "tokens/s: sampled; (cores): by processor seconds, which other work on the machine changes little; "
        "read, images: tokens prefilled and images encoded, a conversation\n"
        f"ours: slots occupied {ours['occupancy']:.1%}; {ours['prefilled_per_new']:.3f} tokens read for each "
        f"new one ({ours['padded_per_new']:.2f} computed); drawing {ours['drawn']:.2%} of the wall time, "
        f"waited for {ours['waited']:.2%}; {ours['compilations']} compilations after the warm-up",
        flush=True,
    )
    model = {"model_type": subject.config.model_type, "parameters": count}
    return {"load": dataclasses.asdict(load), **model, "records": records}


def _per_token(record: dict[str, Any]) -> float:
    return record["processor_seconds"] / record["sampled_tokens"]


def bench_scale(size: str = DEFAULT_PRESET) -> list[dict[str, Any]]:
    """Measures sampling on small images for several numbers of turns, slots and group sizes, and re-prefill.

    Prints a table. `size` is as in `bench_rollout`.
    """
    subject = make_subject(size)
    side = 4 * family_of(subject.config).images.factor
    base = Load(questions=2, turns=4, side=side, shortest=8, longest=16)
    few = dataclasses.replace(base, questions=1, group=4, slots=4)
    loads = {f"turns {n}": dataclasses.replace(few, turns=n) for n in (2, 4, 8)}
    loads |= {f"slots {n}": dataclasses.replace(base, slots=n) for n in (4, 8, 16)}
    loads |= {f"group {n}": dataclasses.replace(base, questions=16 // n, group=n) for n in (1, 4, 16)}
    records = []
    print(f"{'':9}{'s a conversation':>18}{'tokens read':>13}{'re-prefill: s':>18}{'tokens read':>13}  ratio")
    for name, load in loads.items():
        measured = [measure(ScriptedEngine, name, load, subject)[0]]
        if name.startswith("turns"):
            measured.append(measure(RereadingEngine, f"{name}, re-prefill", load, subject)[0])
        seconds = [record["seconds"] / record["conversations"] for record in measured]
        figures = [f"{s:18.3f}{r['prefilled']:13.0f}" for s, r in zip(seconds, measured, strict=True)]
        ratio = f"{seconds[1] / seconds[0]:7.2f}" if len(seconds) > 1 else ""
        print(f"{name:9}{''.join(figures)}{ratio}", flush=True)
        records += measured
    return records


def measure(
    kind: type[Engine], name: str, load: Load, subject: Subject
) -> tuple[dict[str, Any], list[Trajectory]]:
    """Holds the conversations with an engine, after a warm-up."""
    engine = make_engine(kind, load, subject)
    engine.warm_up(subject.params)
    first_tokens: list[float] = []

    def note_first(*_: Any) -> None:
        if not first_tokens:
            first_tokens.append(time.monotonic())

    requests = [dataclasses.replace(request, on_tokens=note_first) for request in make_requests(load)]
    compiled: list[str] = []

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    began, busy = time.monotonic(), time.process_time()
    trajectories = engine.generate(subject.params, requests, jax.random.key(0))
    wall, busy = time.monotonic() - began, time.process_time() - busy
    jax.monitoring.unregister_event_duration_listener(listen)
    counters, n = engine.counters, len(trajectories)
    prompts = [int(t.loss_mask.argmax()) for t in trajectories]
    new = sum(int((~t.loss_mask).sum()) for t in trajectories) - sum(prompts) + sum(prompts[:: load.group])
    record = {
        "name": name,
        "conversations": n,
        "seconds": wall,
        "processor_seconds": busy,
        "sampled_tokens": counters["sampled_tokens"],
        "tokens_per_second": counters["sampled_tokens"] / wall,
        "prefilled": counters["prefilled_tokens"] / n,
        "images": counters["images"] / n,
        "first_token": first_tokens[0] - began,
        "occupancy": counters["row_steps"] / counters["slot_steps"],
        "prefilled_per_new": counters["prefilled_tokens"] / new,
        "padded_per_new": counters["padded_tokens"] / new,
        "drawn": counters["drawn"] / wall,
        "waited": counters["waited"] / wall,
        "compilations": len(compiled),
        "counters": dict(counters),
    }
    return record, trajectories


def _transformers(load: Load, subject: Subject, trajectories: list[Trajectory]) -> list[dict[str, Any]]:
    """The same for transformers, on the first group; prints whether it wrote the same tokens."""
    if not (importlib.util.find_spec("torch") and importlib.util.find_spec("transformers")):
        print("transformers: not installed, left out")
        return []
    from vilasr_jax.bench.rollout_peer import hold_with_transformers

    record, tokens = hold_with_transformers(load, subject)
    same = sum(
        a.tolist() == b.tokens.tolist() for a, b in zip(tokens, trajectories[: load.group], strict=True)
    )
    print(f"transformers wrote the same tokens in {same} of {len(tokens)} conversations", flush=True)
    return [record]
