"""Models of the Hugging Face hub: `hf://ORG/NAME`, downloaded once into the hub client's cache."""

import importlib.util
import re

from etils import epath

from vilasr_jax.errors import CheckpointError, MissingCheckpointError

SCHEME = "hf://"
# The model's own files, in the top folder: safetensors, configs, tokenizer, chat template.
_FILES = ["*.json", "*.safetensors", "*.jinja", "merges.txt"]
_OTHERS = ["*/*", "consolidated.*"]


def download(address: str) -> epath.Path:
    """The local folder of `hf://ORG/NAME` or `hf://ORG/NAME@REVISION`, downloaded where it is not complete.

    Files that have arrived stay in the cache when a download is stopped, and are not fetched again; without a
    network a complete model is opened from there.

    Raises:
      CheckpointError: the client is not installed, or the address has another form.
      MissingCheckpointError: there is no such model, it needs a login, or it can't be downloaded.
    """
    match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", address)
    if not match:
        raise CheckpointError(f"{address}: expected hf://ORG/NAME, or hf://ORG/NAME@REVISION")
    if importlib.util.find_spec("huggingface_hub") is None:
        needed = 'pip install "vilasr-jax[hub]"'
        raise CheckpointError(f"{address}: hf:// needs the package huggingface_hub; run: {needed}")
    from huggingface_hub import errors, snapshot_download

    name, revision = match.groups()
    login = "run `hf auth login`, or set HF_TOKEN"
    try:
        folder = snapshot_download(name, revision=revision, allow_patterns=_FILES, ignore_patterns=_OTHERS)
    except errors.GatedRepoError as error:
        reason = f"its terms must be accepted on its page first; then {login}"
        raise MissingCheckpointError(f"{address}: {reason}") from error
    except errors.RepositoryNotFoundError as error:
        reason = f"the hub has no such model, or it is private; then {login}"
        raise MissingCheckpointError(f"{address}: {reason}") from error
    except errors.RevisionNotFoundError as error:
        raise MissingCheckpointError(f"{address}: the model has no revision {revision!r}") from error
    except Exception as error:  # the client raises many types for a network or a disk that fails
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise MissingCheckpointError(
            f"{address}: could not be downloaded ({reason}); files that have arrived stay, and the same "
            "command fetches the others. On a machine without a network give a local folder"
        ) from error
    return epath.Path(folder)
