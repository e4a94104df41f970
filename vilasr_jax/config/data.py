"""Tasks, imported data and drawing."""

from __future__ import annotations

from dataclasses import dataclass

from vilasr_jax.config.fields import setting
from vilasr_jax.drawing.formats import FORMATS
from vilasr_jax.drawing.session import DrawingSettings
from vilasr_jax.errors import ConfigError


@dataclass(frozen=True)
class DrawingSection:
    """The drawing tools, as the model sees them."""

    prompt: str = "vilasr_jax"  # vilasr_jax, short; published (that of data.traces); a file or folder
    actions: str = setting("published", choices=tuple(FORMATS))  # tool_call: as function calls
    style: str = "clear"  # clear, published (as released weights were trained on), maze
    tools: tuple[str, ...] = ("object_mapper", "path_tracer")  # also erase, zoom, point, text, select_frame
    max_turns: int = setting(DrawingSettings.max_turns, at_least=1)  # assistant turns per conversation
    maze_turns: int = 0  # the same for rows of data type "maze"; 0: max_turns
    max_images: int = setting(DrawingSettings.max_images, at_least=1)  # base and drawn, per conversation


@dataclass(frozen=True)
class MazeSection:
    """The synthetic maze task (vilasr_jax.tasks.maze)."""

    grid: int = 5  # cells per side
    cell: int = 28  # pixels per cell
    min_moves: int = 3
    max_moves: int = 6
    wall_density: float = 0.3  # fraction of inner edges that carry a wall
    kinds: tuple[str, ...] = ("end",)  # questions: end (where moves end), route (which lead to the goal)
    ood_grid: int = 6  # cells per side of the larger out-of-distribution mazes


@dataclass(frozen=True)
class SceneSection:
    """A synthetic task of rendered scenes: static, video or multi-view (vilasr_jax.tasks)."""

    level: str = "easy"  # tiny, tiny_wide, easy, medium, hard
    kinds: tuple[str, ...] = ()  # kinds of question; empty: all of the level


@dataclass(frozen=True)
class MakeSection:
    """`vilasr data make`: rows per task of config.tasks in each split."""

    train: int = 10_000
    rl: int = 2_000
    val: int = 256
    test: int = 512
    ood: int = 512
    shard: int = 1_000  # rows per file
    workers: int = 2  # processes


DATA_FOLDERS = (
    "traces",
    "reflect_traces",
    "questions",
    "reflect_questions",
    "synthesis_questions",
    "benchmarks",
)


@dataclass(frozen=True)
class DataSection:
    """Imported data (folders that `vilasr data import` or `vilasr synthesize` wrote)."""

    root: str = ""  # where relative folders of this section start; empty: where the command runs
    traces: tuple[str, ...] = ()  # recorded conversations for the cold start
    reflect_traces: tuple[str, ...] = ()  # reflect trains on these recorded conversations, samples none
    traces_fraction: float = 1.0  # part of a cold-start batch; the others are expert traces of config.tasks
    questions: tuple[str, ...] = ()  # imported questions for rl, instead of those of tasks
    reflect_questions: tuple[str, ...] = ()  # imported questions for reflect, instead of those of tasks
    allow_same_questions: bool = False  # reflect and rl may use the same questions
    synthesis_questions: tuple[str, ...] = ()  # imported questions for synthesize, instead of those of tasks
    benchmarks: tuple[str, ...] = ()  # imported benchmarks, evaluated in addition to config.tasks
    traces_pixels: int = 0  # largest area of an image of `traces`; 0: config.image.max_pixels
    questions_pixels: int = 0
    benchmarks_pixels: int = 0
    frames: int = 0  # images of a video, at most; 0: all

    def folders(self, key: str) -> tuple[str, ...]:
        """The folders that a key names, with `root` before the relative ones.

        >>> DataSection(root="/bucket/data", traces=("cold_start", "/mine")).folders("traces")
        ('/bucket/data/cold_start', '/mine')
        """
        folders = getattr(self, key)
        if not self.root:
            return folders
        return tuple(
            f if f.startswith("/") or "://" in f else f"{self.root.rstrip('/')}/{f}" for f in folders
        )

    def check(self, path: str) -> None:
        """Raises ConfigError for two sources of one stage, and for rows in a bucket."""
        for key in DATA_FOLDERS:
            if far := [folder for folder in self.folders(key) if "://" in folder]:
                raise ConfigError(
                    f"{path}.{key}: {far[0]} must be a folder: copy the rows, or mount the bucket (Cloud "
                    "Storage FUSE) and give the folder of the mount, as launch/host.sh does"
                )
        if self.reflect_traces and self.reflect_questions:
            raise ConfigError(
                f"{path}.reflect_traces and {path}.reflect_questions are both given: reflect trains on "
                "recorded conversations or samples its own; clear one with ()"
            )
