"""Conversations and curves as matplotlib figures, for notebooks and papers."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from vilasr_jax.drawing import tagged_answer
from vilasr_jax.rollout import Trajectory


def conversation_figure(trajectory: Trajectory, width: float = 2.0) -> Figure:
    """The given images, then each turn: what was drawn in it over what the model wrote.

    Args:
      trajectory: a finished conversation.
      width: inches of a panel.
    """
    panels: list[tuple[Image.Image | None, str]]
    panels = [(image, f"image {k}") for k, image in enumerate(trajectory.images[: trajectory.base_images], 1)]
    for turn in trajectory.turns:
        drawn = [trajectory.images[k - 1] for k in turn["drawn"]]
        error = f"\n(error: {turn['error']})" if turn["error"] else ""
        panels.append((drawn[-1] if drawn else None, _said(turn["text"]) + error))
    figure, axes = plt.subplots(1, len(panels), figsize=(width * len(panels), width * 1.8), squeeze=False)
    for axis, (image, words) in zip(axes[0], panels, strict=True):
        axis.axis("off")
        if image is not None:
            axis.imshow(image)
        axis.set_title(textwrap.fill(words, int(width * 12)), fontsize=7, loc="left", y=-0.05, va="top")
    figure.subplots_adjust(left=0, right=1, top=1, bottom=0.45, wspace=0.05)
    plt.close(figure)
    return figure


def curves_figure(
    curves: Mapping[str, Mapping[str, Sequence[Sequence[float]]]], names: Sequence[tuple[str, str]]
) -> Figure:
    """Plots several curves of a run side by side.

    Args:
      curves: stage -> metric -> [step, value] pairs, as `report.read_run(workdir).curves`.
      names: which (stage, metric) to draw.
    """
    figure, axes = plt.subplots(1, len(names), figsize=(2.8 * len(names), 2), squeeze=False)
    for axis, (stage, metric) in zip(axes[0], names, strict=True):
        points = curves.get(stage, {}).get(metric, [])
        axis.plot([p[0] for p in points], [p[1] for p in points], marker="." if len(points) < 30 else "")
        axis.set_title(f"{stage}: {metric}", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.set_ylim(bottom=0)
    figure.tight_layout()
    plt.close(figure)
    return figure


def _said(text: str) -> str:
    """A turn's words without its tags and coordinates."""
    head, answer = text.partition("</think>")[0], tagged_answer(text)
    return head.replace("<think>", "").strip() + (f" → {answer}" if answer else "")
