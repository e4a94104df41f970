"""Opens any checkpoint: a Hugging Face folder, an Orbax folder of `vilasr convert`, or a stage of a run.

Opening reads the small files, and checks names and shapes of the weights. `Checkpoint.load` reads the weights
onto one device or, part by part, onto the devices of a mesh.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from vilasr_jax.checkpoint.adapted_weights import AdaptedWeights
from vilasr_jax.checkpoint.address import Address, listed, parse_address
from vilasr_jax.checkpoint.array_files import ITEM, weight_folder
from vilasr_jax.checkpoint.convert import copy_companions, write_hf
from vilasr_jax.checkpoint.first_weights import check_first_weights, noted_address
from vilasr_jax.checkpoint.folders import check_free
from vilasr_jax.checkpoint.hf_config import (
    check_preprocessor,
    config_from_hf,
    hf_family,
    preprocessor_config,
    read_json,
)
from vilasr_jax.checkpoint.hf_import import open_hf, published_weights
from vilasr_jax.checkpoint.hf_layout import Weights, abstract_params
from vilasr_jax.checkpoint.hub import SCHEME
from vilasr_jax.checkpoint.orbax_weights import OrbaxWeights, check_orbax
from vilasr_jax.checkpoint.peft_export import export_peft
from vilasr_jax.checkpoint.sharded_import import load_sharded
from vilasr_jax.checkpoint.store import CheckpointStore
from vilasr_jax.config import TRAINED, JobConfig, OptimizerSection
from vilasr_jax.conversation_settings import exported_settings, read_exported_settings
from vilasr_jax.drawing.prompts import PromptSet
from vilasr_jax.errors import CheckpointError, ConfigError, MissingCheckpointError
from vilasr_jax.files import write_json
from vilasr_jax.model_card import CARD, model_card, read_scores
from vilasr_jax.models import ModelConfig, ModelFamily, family_of, is_published_size, preset, published_sizes
from vilasr_jax.models.params import abstract
from vilasr_jax.processing import Tokenizer
from vilasr_jax.training.lora import Factors, new_factors
from vilasr_jax.training.stage import Stage
from vilasr_jax.training.stage_folders import StageFolders
from vilasr_jax.training.wording import job_prompts
from vilasr_jax.workdir import read_job

HF, ORBAX, RUN = "Hugging Face folder", "Orbax folder", "workdir of a run"
SAVED_CONFIG = "model/config.json"  # in a workdir: of first weights that were given


class Checkpoint:
    """An opened checkpoint whose weights are not read yet.

    Attributes:
      address: where it is.
      kind: `HF`, `ORBAX` or `RUN`.
      config: sizes; `param_dtype` is the dtype of the stored weights.
      weights: the stored weights, for a config with the dtype to read them in.
    """

    def __init__(
        self, address: Address, kind: str, config: ModelConfig, weights: Callable[[ModelConfig], Weights]
    ):
        self.address, self.kind, self.config, self.weights = address, kind, config, weights

    @property
    def folder(self) -> epath.Path:
        """The model's folder, or the workdir."""
        return self.address.folder

    @property
    def fixed_address(self) -> str:
        """The address with the commit, or with the stage and step: what is there does not change later."""
        text, name = self.address.text, self.folder.name
        hub = text.startswith(SCHEME) and re.fullmatch("[0-9a-f]{40}", name)
        return f"{text.partition('@')[0]}@{name}" if hub else text

    @property
    def weight_files(self) -> list[epath.Path]:
        """The files of the weights alone."""
        if self.kind == HF:
            return [path for path in self.folder.iterdir() if path.suffix == ".safetensors"]
        return [path for path in weight_folder(self.folder).rglob("*") if path.is_file()]

    @cached_property
    def conversation(self) -> tuple[JobConfig, PromptSet]:
        """The configuration and the prompt of the model's conversations."""
        return read_exported_settings(self.folder)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return Tokenizer.from_dir(self.folder, family_of(self.config))

    def load(self, mesh: Mesh | None = None, param_dtype: str | None = None) -> nnx.State:
        """Reads the weights.

        Args:
          mesh: of the devices of all hosts, which must all call this; None: one device.
          param_dtype: of the weights; None: the stored one.

        Raises:
          CheckpointError: a weight that can't be read, is not finite, or too large for the dtype.
        """
        return load_sharded(self._weights(param_dtype), mesh)

    def write_hf(
        self,
        dst: epath.PathLike,
        dtype: str | None = None,
        report: Callable[[int, int], None] | None = None,
        *,
        overwrite: bool = False,
    ) -> None:
        """Writes a Hugging Face folder, a tensor at a time.

        Args:
          dst: folder to make; appears when complete.
          dtype: of the weights; None: the stored one, and bfloat16 instead of float32 for published sizes.
          report: called with the number of weights (and parts of large ones) written, and of all.
          overwrite: replace an existing folder.

        Raises:
          CheckpointError: as `load`, or the folder exists or can't be written.
        """
        if dtype is None and self.config.param_dtype == "float32" and is_published_size(self.config):
            dtype = "bfloat16"
        write_hf(self._weights(dtype), dst, self.write_companions, report=report, overwrite=overwrite)

    def write_companions(self, folder: epath.Path) -> None:
        """Writes the files of tokenizer, image processor and conversations into a Hugging Face folder."""
        copy_companions(self.folder, folder)

    def _weights(self, param_dtype: str | None) -> Weights:
        return self.weights(self.config.replace(param_dtype=param_dtype or self.config.param_dtype))


class RunCheckpoint(Checkpoint):
    """A saved step of a run's stage."""

    def __init__(self, address: Address, job: JobConfig, stage: Stage, step: int):
        self.address, self.job = address, job  # the tokenizer is read with them
        self.stage, self.step = stage, step
        self.of = {"stage": stage.directory.name, "step": step}
        name = stage.directory.name
        config, weights = stage_weights(
            job, self.folder, name, step, run_config(job, self.folder, self.tokenizer)
        )
        super().__init__(address, RUN, config, weights)

    @property
    def fixed_address(self) -> str:
        return f"{self.folder}:{self.of['stage']}@{self.step}"

    @property
    def weight_files(self) -> list[epath.Path]:
        step = self.stage.store.directory / str(self.step)
        return [path for item in (ITEM, "lora") for path in (step / item).rglob("*") if path.is_file()]

    @cached_property
    def conversation(self) -> tuple[JobConfig, PromptSet]:
        return self.job, job_prompts(self.job, self.folder)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_dir(self.folder / "tokenizer", run_family(self.job, self.folder))

    @property
    def base(self) -> str:
        """The address of the weights that the stage began with; "" of random ones."""
        name, stages = self.stage.directory.name, StageFolders(self.job, self.folder)
        if name == stages.first():
            return noted_address(self.folder, self.job.model.init_from)
        before = stages.before(name)
        return f"{self.folder}:{before}@{stages[before].step()}"

    def write_peft(self, dst: epath.PathLike) -> None:
        """Writes what the stage's LoRA has trained as an adapter in PEFT's format.

        It belongs to the weights that the stage began with (`base`), which its config names.

        Raises:
          CheckpointError: the stage was trained without LoRA, or the folder exists or can't be written.
        """
        section = getattr(self.job, self.stage.directory.name).optimizer
        if not section.lora_rank:
            raise CheckpointError(
                f"{self.address.text}: was trained without LoRA, so it has no adapter; `vilasr convert "
                "to-hf` writes the model"
            )
        factors = _factors(self.stage, self.step, section, self.config)
        export_peft(factors, section.lora_alpha, self.config, dst, self.base)

    def write_companions(self, folder: epath.Path) -> None:
        job, prompts = self.conversation
        self.tokenizer.save(folder)
        image = preprocessor_config(self.config, job.image.min_pixels, job.image.max_pixels)
        for name, values in {**exported_settings(job, prompts), "preprocessor_config.json": image}.items():
            write_json(folder / name, values)
        parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract_params(self.config)))
        trained = StageFolders(job, self.folder).through(self.stage.directory.name)
        card = model_card(job, self.config, self.of, parameters, read_scores(self.folder), trained)
        (folder / CARD).write_text(card)


def open_checkpoint(source: epath.PathLike) -> Checkpoint:
    """Opens a checkpoint of any kind.

    Args:
      source: a Hugging Face folder, an Orbax folder of `vilasr convert from-hf`, a workdir (its last finished
        stage), a stage of one ("runs/x:cold_start") or a saved step ("runs/x:rl@120"), each local or `gs://`;
        or `hf://ORG/NAME`, which is downloaded.

    Raises:
      MissingCheckpointError: nothing is there, or no such stage or step.
      CheckpointError: something else is there, or it is damaged.
    """
    address = parse_address(source)
    values = address.config
    if "model_type" not in values:
        return _open_run(address)
    folder, where = address.folder, str(address.folder / "config.json")
    has_steps = bool(CheckpointStore(folder).steps())
    names = [path.name for path in folder.iterdir()]
    tensors = any(name.endswith((".safetensors", ".safetensors.index.json")) for name in names)
    orbax = has_steps and not tensors
    if not has_steps and not tensors:
        for name in names:
            if name.partition(".")[0].isdigit():
                what = f"is an {ORBAX} whose checkpoint {name} was not finished"
                raise CheckpointError(f"{folder}: {what}; convert or copy it again")
    if address.stage is not None:
        what = f"{f'an {ORBAX}' if orbax else f'a {HF}'} of {hf_family(values, where=where).model_type}"
        raise CheckpointError(
            f"{address.text}: {folder} is {what}, which has no stages; expected a {RUN} before ':', or "
            f"{folder} alone"
        )
    if orbax:
        arrays = weight_folder(folder)
        config = check_orbax(arrays, config_from_hf(values, where=where))
        check_preprocessor(folder, family_of(config).images)
        return Checkpoint(address, ORBAX, config, lambda config: OrbaxWeights(config, arrays))
    config, _, stored = open_hf(folder)
    return Checkpoint(address, HF, config, lambda config: published_weights(config, stored))


def open_first(job: JobConfig, workdir: epath.PathLike) -> Checkpoint:
    """Opens `job.model.init_from` as it was when the run in `workdir` began.

    Raises:
      MissingCheckpointError: it is not there any more, or its weights are others now.
      CheckpointError: it can't be opened.
    """
    opened = open_checkpoint(noted_address(workdir, job.model.init_from))
    check_first_weights(workdir, opened.weight_files)
    return opened


def stage_weights(
    job: JobConfig, workdir: epath.PathLike, name: str, step: int, config: ModelConfig
) -> tuple[ModelConfig, Callable[[ModelConfig], Weights]]:
    """The weights of a stage's saved step: (config with the stored dtype, weights for a config).

    A step of LoRA with an int8 base holds the factors alone; they are added to the float weights that the
    stage began with: those of the stage before it, or `job.model.init_from`.

    Args:
      job: the configuration of the run.
      workdir: its folder.
      name: of the stage.
      step: a saved one.
      config: of the model.

    Raises:
      CheckpointError: the step or the weights it belongs to are damaged or missing.
    """
    stages = StageFolders(job, epath.Path(workdir))
    stage, section = stages[name], getattr(job, name).optimizer
    if not section.lora_base:
        folder = weight_folder(stage.store.directory, step)
        return check_orbax(folder, config), lambda config: OrbaxWeights(config, folder)
    if name == stages.first():
        try:
            opened = open_first(job, workdir)
        except CheckpointError as error:
            what = f"{workdir}:{name}@{step} is an adapter of config.model.init_from"
            raise type(error)(f"{what}: {error}") from error
        stored, base = config.replace(param_dtype=opened.config.param_dtype), opened.weights
    else:
        before = stages.before(name)
        stored, base = stage_weights(job, workdir, before, stages[before].step() or 0, config)
    factors = jax.device_get(_factors(stage, step, section, config))
    scale = section.lora_alpha / section.lora_rank
    return stored, lambda config: AdaptedWeights(base(config), factors, scale)


def _factors(stage: Stage, step: int, section: OptimizerSection, config: ModelConfig) -> Factors:
    """What LoRA has trained until a saved step."""
    shapes = jax.eval_shape(partial(new_factors, rank=section.lora_rank), abstract(config)[1])
    return stage.store.restore(step, {"lora": shapes})["lora"]


def convert_to_hf(
    source: epath.PathLike,
    dst: epath.PathLike,
    dtype: str | None = None,
    report: Callable[[int, int], None] | None = None,
) -> None:
    """Writes any checkpoint as a Hugging Face folder; see `open_checkpoint` and `Checkpoint.write_hf`."""
    check_free(dst)
    open_checkpoint(source).write_hf(dst, dtype, report)


def convert_to_peft(source: epath.PathLike, dst: epath.PathLike) -> str:
    """Writes a stage that LoRA has trained as an adapter in PEFT's format; see `RunCheckpoint.write_peft`.

    Returns:
      The address of the weights that it belongs to.

    Raises:
      CheckpointError: `source` is no stage of a run, or one without LoRA.
    """
    check_free(dst)
    opened = open_checkpoint(source)
    if not isinstance(opened, RunCheckpoint):
        kind = opened.kind
        raise CheckpointError(f"{source}: is a {kind}; expected a stage of a run that was trained with LoRA")
    opened.write_peft(dst)
    return opened.base


def hf_folder(source: epath.PathLike) -> epath.Path:
    """The folder of a Hugging Face model; one of the hub is downloaded.

    Raises:
      CheckpointError: there is none, or another kind of checkpoint.
    """
    opened = open_checkpoint(source)
    if opened.kind != HF:
        family = opened.config.model_type
        raise CheckpointError(f"{source}: is the {opened.kind} of {family}; expected a {HF} or hf://ORG/NAME")
    return opened.folder


def run_family(job: JobConfig, workdir: Path | epath.Path) -> ModelFamily:
    """The model family of a run: that of its first weights, else the preset's."""
    path = epath.Path(workdir) / SAVED_CONFIG
    if path.exists():
        return hf_family(read_json(path), where=str(path))
    if job.model.init_from:  # a run of an earlier version
        return family_of(open_first(job, workdir).config)
    return family_of(preset(job.model.preset))


def check_preset(job: JobConfig, family: ModelFamily, config: ModelConfig | None = None) -> None:
    """Raises ConfigError for a `model.preset` that is another model than `model.init_from`.

    Args:
      job: the configuration.
      family: of its first weights.
      config: of its first weights, where sizes are to be compared, too.
    """
    name, source = job.model.preset, job.model.init_from
    if not (name and source):
        return
    stated = preset(name)

    def words(family: ModelFamily, sizes: ModelConfig) -> str:
        return f"a {family.title}, {sizes.hidden_size} wide, of {sizes.num_layers} layers"

    said, found = words(family_of(stated), stated), words(family, config or stated)
    if said != found:
        raise ConfigError(
            f"config.model.preset={name!r} is {said if config else family_of(stated).title}, and "
            f"config.model.init_from={source!r} is {found if config else family.title}; leave the preset "
            "empty, or name other weights"
        )


def run_config(
    job: JobConfig, workdir: Path | epath.Path, tokenizer: Tokenizer, **fields: Any
) -> ModelConfig:
    """The model config of a run: that of its first weights, else of the preset.

    A preset that is no published size gets vocabulary size and special ids from the tokenizer.
    """
    path = epath.Path(workdir) / SAVED_CONFIG
    if path.exists():
        return config_from_hf(read_json(path), where=str(path), **fields)
    if job.model.init_from:
        return open_first(job, workdir).config.replace(**fields)
    if job.model.preset not in published_sizes():
        vocabulary = -(-tokenizer.vocab_size // 8) * 8
        fields |= dict(vocab_size=vocabulary, **tokenizer.special.config_fields())
    return preset(job.model.preset, **fields)


def _open_run(address: Address) -> RunCheckpoint:
    workdir, name, step = address.folder, address.stage, address.step
    try:
        job = read_job(workdir)
    except ConfigError as error:
        raise CheckpointError(f"{workdir}: is no workdir of a run that can be opened ({error})") from error
    stages = StageFolders(job, workdir)
    if name is None:
        name = stages.last()
    if name == "untrained":
        raise MissingCheckpointError(
            f"{workdir}: no stage is finished yet; {_saved(stages)}; run `vilasr train` on it"
        )
    if name not in TRAINED:
        raise MissingCheckpointError(f"{address.text}: a run has no stage {name!r}; {_saved(stages)}")
    stage = stages[name]
    if step is None and not stage.done:
        raise MissingCheckpointError(f"{address.text}: {name} is not finished; {_saved(stages)}")
    step = stage.step(job.eval.best) if step is None else step
    if step not in stage.store.steps():
        raise MissingCheckpointError(f"{address.text}: {name} has no saved step {step}; {_saved(stages)}")
    return RunCheckpoint(address, job, stage, step)


def _saved(stages: StageFolders) -> str:
    """What a workdir holds: "it holds runs/x:cold_start (steps 100, 200) and runs/x:rl@40 (not finished)"."""
    found = []
    for name in TRAINED:
        stage = stages[name]
        if steps := stage.store.steps():
            address = f"{stages.workdir}:{name}" + ("" if stage.done else f"@{steps[-1]}")
            note = f"step{'s' if len(steps) > 1 else ''} {listed(steps)}"
            found.append(f"{address} ({note}{'' if stage.done else ', not finished'})")
    return f"it holds {', '.join(found) or 'no saved step of any stage'}"
