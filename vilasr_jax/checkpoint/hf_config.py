"""config.json and the other JSON files of a Hugging Face folder, read and written by the model's family.

flat, as published:       text sizes at the top
nested, transformers 5:   text_config
"""

from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath
from PIL import Image

from vilasr_jax.errors import CheckpointError
from vilasr_jax.files import parse_json
from vilasr_jax.models import ImageSpec, ModelConfig, ModelFamily, by_model_type, family_of, model_types

LAYOUTS = ("flat", "nested")


def read_json(path: epath.Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
      CheckpointError: no such file, not JSON, or not an object.
    """
    try:
        value = parse_json(path.read_bytes())
    except FileNotFoundError as error:
        if (path.parent / "adapter_config.json").exists():
            adapter = "it holds an adapter (LoRA) only; merge it into its base model and give that folder"
            raise CheckpointError(f"{path.parent}: {adapter}") from error
        raise CheckpointError(f"{path}: no such file; give a Hugging Face model folder") from error
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: must hold a JSON object, not {type(value).__name__}")
    return value


def hf_family(config: Mapping[str, Any], *, where: str = "config.json") -> ModelFamily:
    """The model family of a parsed config.json.

    Raises:
      CheckpointError: a kind of model that does not exist here.
    """
    name = config.get("model_type")
    if name not in model_types():
        raise CheckpointError(f"{where}: model_type is {name!r}, not {' or '.join(map(repr, model_types()))}")
    return by_model_type(name)


def config_from_hf(config: Mapping[str, Any], *, where: str = "config.json", **overrides) -> ModelConfig:
    """A model config from a parsed config.json of either layout.

    Args:
      config: the parsed file.
      where: what to call it in errors.
      **overrides: fields of the family's config to set, such as dtype.

    Raises:
      CheckpointError: another kind of model, a missing size, or a choice this model does not implement.
    """
    return hf_family(config, where=where).config_from_hf(config, where=where, **overrides)


def ties(config: Mapping[str, Any]) -> list[bool]:
    """What a config.json says of `tie_word_embeddings`, at its top and in its text_config."""
    places = (config, config.get("text_config") or {})
    return [bool(p["tie_word_embeddings"]) for p in places if p.get("tie_word_embeddings") is not None]


def config_to_hf(config: ModelConfig, *, layout: str = "flat", dtype: str | None = None) -> dict[str, Any]:
    """What config.json says of `config`; `dtype` is that of the stored weights, by default param_dtype."""
    if layout not in LAYOUTS:
        raise CheckpointError(f"config.json layout must be one of {LAYOUTS}, not {layout!r}")
    return family_of(config).config_to_hf(config, layout=layout, dtype=dtype)


def generation_config(config: ModelConfig) -> dict[str, Any]:
    """generation_config.json: greedy by default, stopping at `<|im_end|>` and the end of text."""
    stops = sorted({config.eos_token_id, config.bos_token_id}, reverse=True)
    return {
        "bos_token_id": config.bos_token_id,
        "pad_token_id": config.bos_token_id,
        "eos_token_id": stops,
        "do_sample": False,
    }


def preprocessor_config(config: ModelConfig, min_pixels: int, max_pixels: int) -> dict[str, Any]:
    """preprocessor_config.json of the family's image processor; pixels bound a resized image's area."""
    return family_of(config).preprocessor_config(config, min_pixels, max_pixels)


def check_preprocessor(folder: epath.PathLike, images: ImageSpec) -> None:
    """Checks that the processors of a folder, if it has any, resize, cut and normalise pictures as `images`.

    How large images may be is a choice of whoever asks, see `pixel_limits`.

    Raises:
      CheckpointError: a file isn't a JSON object, or a value of it is another.
    """
    for path, values in (*_processors(folder, "image"), *_processors(folder, "video")):
        for name, ours in (
            ("patch_size", images.patch_size),
            ("temporal_patch_size", images.temporal_patch_size),
            ("merge_size", images.merge_size),
            ("image_mean", list(images.mean)),
            ("image_std", list(images.std)),
            ("do_resize", True),
            ("resample", int(Image.Resampling.BICUBIC)),
            ("do_rescale", True),
            ("rescale_factor", 1 / 255),
            ("do_normalize", True),
        ):
            found = values.get(name)
            if found is not None and not _about(found, ours):
                raise CheckpointError(f"{path}: {name} is {found!r}, and this model's pictures have {ours}")


def _processors(folder: epath.PathLike, kind: str) -> Iterator[tuple[epath.Path, dict[str, Any]]]:
    """(file, values) of each image or video processor of a folder.

    Up to version 4, transformers writes `preprocessor_config.json` and `video_preprocessor_config.json`, from
    version 5 on both into `processor_config.json`.
    """
    path = epath.Path(folder) / (
        "preprocessor_config.json" if kind == "image" else f"{kind}_preprocessor_config.json"
    )
    if path.exists():
        yield path, read_json(path)
    path = epath.Path(folder) / "processor_config.json"
    if path.exists() and isinstance(values := read_json(path).get(f"{kind}_processor"), dict):
        yield path, values


def _about(found: Any, ours: Any) -> bool:
    """Equal, or numbers that differ by rounding to float32."""
    if isinstance(ours, list):
        return isinstance(found, list) and len(found) == len(ours) and all(map(_about, found, ours))
    return isinstance(found, (int, float)) and abs(found - ours) < 1e-6


def pixel_limits(folder: epath.PathLike, images: ImageSpec) -> tuple[int, int] | None:
    """(least, greatest) area of an image that a folder's image processor names; None if it names neither.

    Where it names one alone, the other is that of `images`.

    Raises:
      CheckpointError: a file isn't a JSON object, or its limits aren't numbers in order.
    """
    for path, values in _processors(folder, "image"):
        size = values.get("size")
        size = size if isinstance(size, dict) else {}
        least = values.get("min_pixels") or size.get("min_pixels") or size.get("shortest_edge")
        most = values.get("max_pixels") or size.get("max_pixels") or size.get("longest_edge")
        if least is None and most is None:
            continue
        if least is None and isinstance(most, int):
            least = min(images.min_pixels, most)
        if most is None and isinstance(least, int):
            most = max(images.max_pixels, least)
        if not (isinstance(least, int) and isinstance(most, int) and 0 < least <= most):
            raise CheckpointError(
                f"{path}: min_pixels={least!r}, max_pixels={most!r} aren't limits of an area"
            )
        return least, most
    return None
