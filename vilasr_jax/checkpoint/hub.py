"""Models of the Hugging Face hub: `hf://ORG/NAME`, downloaded once into the client's cache, and uploaded."""

import importlib.util
import re
from fnmatch import fnmatch

from etils import epath

from vilasr_jax.errors import CheckpointError, MissingCheckpointError
from vilasr_jax.files import near_path

SCHEME = "hf://"
# The model's own files, in the top folder: safetensors, configs, tokenizer, chat template.
_FILES = ["*.json", "*.safetensors", "*.jinja", "merges.txt"]
_OTHERS = ["*/*", "consolidated.*"]
CARD = "README.md"  # the model card


def download(address: str) -> epath.Path:
    """The local folder of `hf://ORG/NAME` or `hf://ORG/NAME@REVISION`, downloaded where it is not complete.

    Files that have arrived stay in the cache when a download is stopped, and are not fetched again; without a
    network a complete model is opened from there.

    Raises:
      CheckpointError: the client is not installed, or the address has another form.
      MissingCheckpointError: there is no such model, it needs a login, or it can't be downloaded.
    """
    name, revision = parse_hub_address(address)
    from huggingface_hub import errors, snapshot_download

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
        raise MissingCheckpointError(
            f"{address}: could not be downloaded ({_first_line(error)}); files that have arrived stay, and "
            "the same command fetches the others. On a machine without a network give a local folder"
        ) from error
    return epath.Path(folder)


def parse_hub_address(address: str) -> tuple[str, str | None]:
    """("ORG/NAME", revision) of an address; the revision is None where none is named.

    Raises:
      CheckpointError: the client is not installed, or the address has another form.
    """
    match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", address)
    if not match:
        raise CheckpointError(f"{address}: expected hf://ORG/NAME, or hf://ORG/NAME@REVISION")
    check_client(address)
    return match[1], match[2]


def upload(folder: epath.PathLike, name: str, *, private: bool = False, message: str = "") -> str:
    """Uploads a Hugging Face folder as the model ORG/NAME of the hub, which is created where it is missing.

    Args:
      folder: a local folder with config.json and safetensors. Files of the model that the hub holds and the
        folder does not, such as shards of earlier weights, are deleted there.
      name: ORG/NAME.
      private: of a new model.
      message: of the commit.

    Returns:
      The model's address.

    Raises:
      CheckpointError: another name or folder, no model card, the client is not installed, no permission, or
        it failed.
    """
    name = name.removeprefix(SCHEME)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise CheckpointError(
            f"{name}: expected ORG/NAME, your name or organisation on the hub and the model's"
        )
    exported = epath.Path(folder)
    if not (exported / "config.json").exists() or not list(exported.glob("*.safetensors")):
        run = folder if (exported / "config.json").exists() else "RUN"
        cure = near_path(folder) or f"; write one: vilasr convert to-hf {run} DST"
        raise CheckpointError(f"{folder}: holds no model in Hugging Face files{cure}")
    if not (exported / CARD).exists():
        raise CheckpointError(
            f"{folder}: has no {CARD}, the model card that the hub shows; `vilasr convert to-hf RUN DST` "
            "writes one with the model, or write your own there"
        )
    check_client(f"push to {name}")
    from huggingface_hub import HfApi, errors

    login = "run `hf auth login` with a token that may write, or set HF_TOKEN"
    try:
        api = HfApi()
        api.create_repo(name, private=private, exist_ok=True)
        there = [path for path in api.list_repo_files(name) if "/" not in path]
        api.upload_folder(
            repo_id=name,
            folder_path=str(exported),
            commit_message=message or "Upload the model",
            delete_patterns=[path for path in there if any(fnmatch(path, one) for one in _FILES)] or None,
        )
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        reason = f"not permitted ({status}); {login}" if status in (401, 403) else _first_line(error)
        raise CheckpointError(f"{name}: {reason}") from error
    except errors.LocalTokenNotFoundError as error:
        raise CheckpointError(f"{name}: there is no token; {login}") from error
    except Exception as error:  # the client raises many types for a network that fails
        raise CheckpointError(
            f"{name}: could not be uploaded ({_first_line(error)}); check the network, then try again"
        ) from error
    return f"{SCHEME}{name}"


def check_client(purpose: str) -> None:
    """Raises CheckpointError, naming the package, where the hub's client is not installed."""
    if importlib.util.find_spec("huggingface_hub") is None:
        needed = 'pip install "vilasr-jax[hub]"'
        raise CheckpointError(f"{purpose}: hf:// needs the package huggingface_hub; run: {needed}")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
