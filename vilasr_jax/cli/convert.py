"""Commands for weights: convert from-hf, to-hf and to-peft, and push."""

from __future__ import annotations

from typing import Any

from vilasr_jax.commands import Flag, command

_DTYPES = ("float32", "bfloat16", "float16")


def _check(words: list[str]) -> None:
    """Refuses a SRC that is no checkpoint and a DST that holds something, before JAX is imported."""
    from vilasr_jax.checkpoint.address import check_address
    from vilasr_jax.checkpoint.folders import check_free

    check_free(words[1])
    check_address(words[0])


@command(
    "convert from-hf",
    "SRC DST",
    Flag("param_dtype", "DTYPE", "of the weights; by default as stored", choices=_DTYPES),
)
def run_convert_from_hf(words: list[str], flags: Any) -> None:
    """A Hugging Face folder to an Orbax checkpoint, a tensor at a time.

    SRC is a folder, local or gs://, or hf://ORG/NAME. Memory stays far below the size of the model. Where
    tensors are of mixed dtypes, config.json decides.

    Example
      vilasr convert from-hf hf://ORG/NAME checkpoints/7b
    """
    _check(words)
    from vilasr_jax.checkpoint import convert_from_hf
    from vilasr_jax.open_checkpoint import hf_folder
    from vilasr_jax.parallel import check_devices
    from vilasr_jax.progress import show_progress

    check_devices()
    with show_progress("weights") as show:
        convert_from_hf(hf_folder(words[0]), words[1], param_dtype=flags.param_dtype, report=show)
    print(f"Wrote {words[1]}")


@command(
    "convert to-hf",
    "SRC DST",
    Flag(
        "dtype",
        "DTYPE",
        "of the weights; by default as stored, but bfloat16 for a published size",
        choices=_DTYPES,
    ),
)
def run_convert_to_hf(words: list[str], flags: Any) -> None:
    """Any checkpoint to a Hugging Face folder, a tensor at a time.

    SRC is a workdir, a stage or a step of one, or any other checkpoint (`vilasr solve --help` lists them).

    Example
      vilasr convert to-hf runs/x:rl@120 exported --dtype=bfloat16
    """
    _check(words)
    from vilasr_jax.open_checkpoint import convert_to_hf
    from vilasr_jax.parallel import check_devices
    from vilasr_jax.progress import show_progress

    check_devices()
    with show_progress("weights") as show:
        convert_to_hf(words[0], words[1], flags.dtype, show)
    print(f"Wrote {words[1]}")


@command("convert to-peft", "SRC DST")
def run_convert_to_peft(words: list[str], flags: Any) -> None:
    """A stage that LoRA trained to an adapter in PEFT's format.

    SRC is a workdir, a stage or a step of one. DST gets adapter_config.json and adapter_model.safetensors.
    The adapter belongs to the weights that the stage began with, which adapter_config.json names.

    Example
      vilasr convert to-peft runs/lora:cold_start adapter
    """
    _check(words)
    from vilasr_jax.checkpoint.hub import SCHEME
    from vilasr_jax.open_checkpoint import convert_to_peft
    from vilasr_jax.parallel import check_devices

    check_devices()
    base = convert_to_peft(words[0], words[1])
    print(f"Wrote {words[1]}, an adapter of {base or 'random weights'}")
    if base and not base.startswith(SCHEME):
        print(f"The weights it belongs to, for PEFT: vilasr convert to-hf {base} DST")


@command(
    "push",
    "DIR ORG/NAME",
    Flag("private", "", "a new model is visible to you alone", False),
    Flag("message", "TEXT", "of the commit", ""),
)
def run_push(words: list[str], flags: Any) -> None:
    """An exported model to the Hugging Face hub.

    DIR is a Hugging Face folder (`vilasr convert to-hf`), or a workdir whose export is uploaded, unless a
    stage has finished since. What an earlier upload left there is replaced. Its README.md is the model card:
    read it first. Needs the extra [hub], and a login: `hf auth login`.

    Example
      vilasr push runs/quickstart me/maze-drawer --private
    """
    from vilasr_jax.checkpoint.hub import upload
    from vilasr_jax.exported import exported_folder

    folder, model = exported_folder(words[0])
    address = upload(folder, words[1], private=flags.private, message=flags.message)
    print(f"Uploaded {folder}: {model}")
    print(f"Anywhere: vilasr solve picture.png --checkpoint {address} --question ...")
