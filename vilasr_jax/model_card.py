"""The card of an exported model: what it is, its data and training, its scores, how to use it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from vilasr_jax.checkpoint.hub import CARD as CARD
from vilasr_jax.config import JobConfig
from vilasr_jax.models import ModelConfig, family_of

NOTE = "model.json"  # of an exported folder: its stage and step
_STAGES = {
    "untrained": "before training",
    "cold_start": "after the cold start",
    "reflect": "after reflection",
    "rl": "after RL",
    "blank_image": "control: white picture instead",
    "ood": "unfamiliar questions",
}
_CARD = """---
library_name: transformers
pipeline_tag: image-text-to-text
{base}tags:
- spatial-reasoning
- visual-drawing
- vilasr_jax
---

# {name}

A vision-language model ({family}, {size}) that answers questions about images by **drawing**: it thinks,
draws boxes or lines on the image, looks at the result, corrects itself, and answers (drawing to reason, arXiv
2506.09965). Trained with vilasr_jax; this is {model}.

## Data and training

{training}

## Scores

{scores}

## Use

With vilasr_jax, which draws what the model asks for and shows it the result:

```bash
vilasr solve picture.png --checkpoint DIR --question "..."
vilasr serve DIR    # a web page, and an API for OpenAI clients
```

`DIR` is this folder; where it is on the hub, `hf://ORG/NAME`. `vilasr_config.json` holds prompt, tools, style
and limits.

In transformers (weights, tokenizer and image processor; the drawing loop is not part of it):

```python
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

model = AutoModelForImageTextToText.from_pretrained("DIR")
tokenizer = AutoTokenizer.from_pretrained("DIR")
images = AutoImageProcessor.from_pretrained("DIR")
```

{coordinates}

## Limits

The model was trained on the data above and is scored on questions like them; of other questions nothing is
known. It sees images of at most {pixels} pixels, and its coordinates and answers can be wrong.{license}
"""


def model_card(
    job: JobConfig,
    config: ModelConfig,
    of: Mapping[str, Any],
    parameters: int,
    scores: Mapping[str, Any],
    trained: Sequence[str],
) -> str:
    """The text of README.md for a run's exported model.

    Args:
      job: the configuration.
      config: of the model.
      of: its {"stage", "step"}.
      parameters: their number.
      scores: of evaluations by name, see `read_scores`. Those of this very model are listed, and of the
        stages before it those without controls and benchmarks.
      trained: the stages that its weights have been through, see `StageFolders.through`.
    """
    source = job.model.init_from
    public = source.removeprefix("hf://").partition("@")[0] if source.startswith("hf://") else ""
    return _CARD.format(
        base=f"base_model: {public}\n" if public else "",
        name=job.name,
        family=config.model_type,
        size=f"{parameters:,} parameters",
        model=f"the stage {of['stage']}, step {of['step']}",
        training="\n".join(_training(job, trained)),
        scores="\n".join(_scores(scores, of, trained)),
        coordinates=_coordinates(family_of(config).coordinates),
        pixels=f"{job.image.max_pixels:,}",
        license=" The license of the base model applies." if source else "",
    )


def _coordinates(side: int | None) -> str:
    """What the numbers are that the model reads and writes for places."""
    if side is None:
        return "Coordinates, in both directions, are pixels of the image as the image processor resizes it."
    return (
        f"Coordinates, in both directions, run from 0 to {side} over an image's width and over its height, "
        "whatever its size."
    )


def read_scores(workdir: epath.PathLike) -> dict[str, Any]:
    """The scores of a run's evaluations by name: "rl", "ood", or "rl/vsi_bench" of a benchmark."""
    home = epath.Path(workdir) / "eval"
    found = {}
    for pattern in ("*/scores.json", "*/*/scores.json"):
        for path in sorted(home.glob(pattern)) if home.exists() else ():
            name = "/".join(path.parts[len(home.parts) : -1])
            found[name] = json.loads(path.read_text())
    return found


def _training(job: JobConfig, trained: Sequence[str]) -> list[str]:
    """A line for what the model began with, and for each stage that it has been through."""
    source = job.model.init_from
    start = source if source.startswith("hf://") else epath.Path(source).name if source else "random weights"
    lines = [f"- Start: {start}"]
    tasks = f"generated tasks ({', '.join(job.tasks)})" if job.tasks else ""
    data = {"cold_start": job.data.traces, "reflect": job.data.reflect_traces, "rl": job.data.questions}
    words = {
        "cold_start": "Cold start: supervised fine-tuning on drawing traces",
        "reflect": "Reflection: supervised fine-tuning on conversations that corrected themselves",
        "rl": f"RL: {job.rl.advantage.upper()}, groups of {job.rl.group}",
    }
    for stage in trained:
        folders = ", ".join(epath.Path(folder).name for folder in data[stage])
        rate = getattr(job, stage).optimizer.learning_rate
        lines.append(f"- {words[stage]}; data: {folders or tasks}; learning rate {rate:g}")
    return [*lines, f"- Seed {job.seed}"]


def _scores(scores: Mapping[str, Any], of: Mapping[str, Any], trained: Sequence[str]) -> list[str]:
    """A table, or a sentence where nothing was evaluated."""
    rows, before = [], {"untrained", *trained} - {of["stage"]}
    for name, found in scores.items():
        stage, _, benchmark = name.partition("/")
        # Earlier versions did not note the model; only a folder named like the stage is certainly its own.
        model = found.get("model") or (of if stage == of["stage"] else {})
        own = all(model.get(key) == of[key] for key in ("stage", "step"))
        if benchmark and own and stage == of["stage"] and isinstance(found.get("overall"), dict):
            mean = found["overall"]
            rows.append((f"benchmark {benchmark}", mean.get("mean"), mean.get("ci95"), mean.get("n")))
        elif not benchmark and (stage in before or (own and stage in (*_STAGES, of["stage"]))):
            words = _STAGES.get(stage, stage)
            rows.append((words, found.get("accuracy"), found.get("ci95"), found.get("n")))
    rows = [row for row in rows if isinstance(row[1], (int, float))]
    if not rows:
        return ["It was not evaluated when it was exported."]
    lines = ["| questions | right | 95 % interval | n |", "|---|---|---|---|"]
    for words, value, interval, count in rows:
        low, high = interval or (None, None)
        between = "" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f} %"
        lines.append(f"| {words} | {100 * value:.1f} % | {between} | {count} |")
    return [
        *lines,
        "",
        "Each answer is a complete conversation that the model sampled, about held-out questions.",
    ]
