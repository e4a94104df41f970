"""Settings of a model's conversations: read from its job, and exported with its weights.

An exported folder holds `vilasr_config.json`: the part of the job's configuration that
a conversation depends on (prompt, style, tools, limits, sampling, compute dtype, tasks). An image's limits
are in `preprocessor_config.json` alone, where other programs read them as well.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from absl import logging
from etils import epath

from vilasr_jax.checkpoint.hf_config import hf_family, pixel_limits, read_json
from vilasr_jax.config import DrawingSection, ImageSection, JobConfig, ModelSection, from_config_dict, to_dict
from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.drawing.prompts import FILE, PROMPTS, PromptSet, read_prompts
from vilasr_jax.errors import CheckpointError, ConfigError
from vilasr_jax.models import ModelFamily, default_family

SETTINGS_FILE = "vilasr_config.json"
# Keys of a job's configuration that its conversations depend on.
_KEYS = (
    "name",
    "tasks",
    "model.dtype",
    "drawing",
    "cold_start.format",
    "eval.sampling",
    "maze",
    "static",
    "video",
    "multiview",
)
# A folder without our settings holds weights as published, or a base model that knows no drawing.
_PUBLISHED = DrawingSection(style="published")


def question_data_type(job: JobConfig, video: bool = False) -> str:
    """The data type that a user's question has, "vqa", or "maze" where the job's tasks are mazes alone.

    With `video` its images are a video's frames.
    """
    if video:
        return "video"
    return "maze" if job.tasks == ("maze",) else "vqa"


def drawing_settings(
    job: JobConfig, data_type: str, prompts: PromptSet, family: ModelFamily | None = None
) -> DrawingSettings:
    """The drawing settings of a job's conversations about rows of a data type (`Row.data_type`).

    `family` is that of the model, by default the default one: it says which coordinates and image sizes the
    model reads.
    """
    drawing, family = job.drawing, family or default_family()
    if drawing.actions == "tool_call" and family.chat.tool_calls is None:
        raise ConfigError(
            f"config.drawing.actions='tool_call': published weights of {family.model_type} know no function "
            "calls; use 'published'"
        )
    return DrawingSettings(
        style=drawing.style,
        prompt=prompts,
        tools=drawing.tools,
        max_turns=(data_type == "maze" and drawing.maze_turns) or drawing.max_turns,
        max_images=drawing.max_images,
        draw=job.cold_start.format == "drawing",
        image_unit=family.images.factor,
        coordinates=family.coordinates,
        actions=drawing.actions,
        timestamp=family.timestamp,
    )


def frame_times(settings: DrawingSettings, count: int, fps: float, video: bool) -> tuple[float, ...]:
    """The times of a video's frames in seconds, the first at 0; none for 0 frames a second.

    Raises:
      ConfigError: `fps` is no such number, the images are no video, or the model reads no times.
    """
    if fps == 0:
        return ()
    if not (math.isfinite(fps) and fps > 0):
        raise ConfigError(f"fps={fps} must be more than 0")
    if not video:
        raise ConfigError(f"fps={fps} is that of a video; say that the images are one (video)")
    if not settings.timestamp:
        raise ConfigError(f"fps={fps}: this model reads no times of a video's frames; leave it out")
    return tuple(number / fps for number in range(count))


def exported_settings(job: JobConfig, prompts: PromptSet) -> dict[str, dict[str, Any]]:
    """The JSON files with the settings of an exported model, by name.

    `vilasr_config.json` holds nested keys and values of the job's configuration; `prompt.json` the words of
    the prompt, unless they are one of `PROMPTS`.
    """
    values: dict[str, Any] = {}
    for key in _KEYS:
        *sections, name = key.split(".")
        source, place = to_dict(job), values
        for section in sections:
            source, place = source[section], place.setdefault(section, {})
        place[name] = source[name]
    ours = prompts.name in PROMPTS
    values["drawing"]["prompt"] = prompts.name if ours else FILE
    return {SETTINGS_FILE: values, **({} if ours else {FILE: dataclasses.asdict(prompts)})}


def read_exported_settings(folder: epath.PathLike) -> tuple[JobConfig, PromptSet]:
    """The configuration and the prompt for the model in a Hugging Face folder.

    Without `vilasr_config.json` it is the published one: no task of ours, the style as released, images no
    larger than the released limit. A prompt file in the folder (`prompt.json`) is used; without one the words
    are ours, and the log says so.

    Raises:
      CheckpointError: a file that can't be read, or a key of it that does not exist.
    """
    folder = epath.Path(folder)
    path = folder / SETTINGS_FILE
    config = folder / "config.json"
    family = hf_family(read_json(config), where=str(config)) if config.is_file() else default_family()
    limits = pixel_limits(folder, family.images)
    own = (folder / FILE).is_file()
    prompts = read_prompts(folder) if own else PROMPTS["vilasr_jax"]
    if not path.is_file():
        image = ImageSection()
        if limits is not None:
            most = min(limits[1], image.max_pixels)
            image = ImageSection(min(limits[0], most), most)
        job = JobConfig(tasks=(), model=ModelSection(dtype="bfloat16"), drawing=_PUBLISHED, image=image)
        if not own:
            _warn_of_our_words(folder)
        return job, prompts
    try:
        job = from_config_dict(read_json(path))
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if job.drawing.prompt not in PROMPTS and not own:
        raise CheckpointError(f"{folder / FILE}: missing; {SETTINGS_FILE} says that it holds the prompt")
    prompts = PROMPTS.get(job.drawing.prompt, prompts)
    return (job if limits is None else dataclasses.replace(job, image=ImageSection(*limits))), prompts


def _warn_of_our_words(folder: epath.PathLike) -> None:
    logging.warning(
        "%s holds no %s: questions have our own words; `vilasr data import` of the traces that it "
        "was trained on writes theirs",
        folder,
        FILE,
    )
