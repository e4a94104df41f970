"""Training checkpoints of one stage: atomic, limited in number, each item readable alone (Orbax).

A step's folder holds one checkpointable for each item of arrays, and small JSON items:

    <directory>/120/params/                one entry a parameter, named by its path ("decoder/q_weight")
                    opt_state/
                    _CHECKPOINT_METADATA   "custom_metadata": {"stage": {...}, "data_iter": {...}}

A dict whose values are all plain JSON (numbers, strings, lists, dicts) is a JSON item; any other is a pytree
of arrays, written flat under the paths of its leaves, so that any container (NNX state, optax named tuples)
comes back through the abstract tree that the reader gives, and a wrong shape is reported by name. Stacked
weights [layer, in, out] are stored layer by layer, others in chunks of at most CHUNK_BYTES.
"""

import json
from collections.abc import Mapping
from typing import Any, Self

import jax
from absl import logging
from etils import epath
from orbax.checkpoint import v1 as ocp

from vilasr_jax.errors import CheckpointError
from vilasr_jax.files import literal_path
from vilasr_jax.parallel import gather

METADATA = "metadata"
SCORE = "score"
CHUNK_BYTES = 128 << 20  # of an array, at most


class Restored(dict):
    """Items by name, and the `step` they were read from."""

    def __init__(self, step: int, items: Mapping[str, Any]):
        super().__init__(items)
        self.step = step


class CheckpointStore:
    """The checkpoints in `directory` (local or `gs://`), limited to the `newest` steps, and of those saved
    with a score the `best`.

    Reading never writes: the folder is created by the first `save`.
    """

    def __init__(self, directory: str | epath.PathLike, newest: int = 2, best: int = 0):
        if newest < 1:
            raise CheckpointError(f"{directory}: newest must be at least 1, not {newest}")
        path = literal_path(directory)
        self.directory = path if "://" in str(directory) else path.absolute()
        self.newest, self.best = newest, best
        self._writer: ocp.training.Checkpointer | None = None
        self._pending: Any = None
        self._broken: set[int] = set()

    def steps(self) -> list[int]:
        """Finished steps, oldest first; a half-written one is not among them."""
        if not self.directory.is_dir():
            return []
        finished = (p for p in self.directory.iterdir() if p.name.isdigit() and ocp.is_orbax_checkpoint(p))
        return sorted(int(p.name) for p in finished)

    def latest_step(self) -> int | None:
        """Newest finished step, or None; one that turned out broken on reading no longer counts."""
        return max((s for s in self.steps() if s not in self._broken), default=None)

    def best_step(self) -> int | None:
        """The step saved with the highest score (the newest of equals), or None where none has one."""
        scored = [(self.metadata(step).get(SCORE), step) for step in self.steps() if step not in self._broken]
        return max((pair for pair in scored if pair[0] is not None), default=(None, None))[1]

    def items(self, step: int) -> tuple[str, ...]:
        """Names of the items saved at `step`."""
        saved = ocp.checkpointables_metadata(self.directory / str(step))
        return tuple(sorted({**saved.metadata, **(saved.custom_metadata or {})}))

    def metadata(self, step: int | None = None) -> dict[str, Any]:
        """The small JSON dict saved with a step (the newest when None); empty when none was given."""
        step = self.latest_step() if step is None else step
        if step is None or METADATA not in self.items(step):
            return {}
        return self._read(step, {METADATA: None})[METADATA]

    def restore(self, step: int | None, abstract: Mapping[str, Any]) -> Restored:
        """Reads the items named in `abstract`, and no others.

        Args:
          step: a saved step, which is read or refused; None for the newest that can be read.
          abstract: item name -> pytree of `jax.ShapeDtypeStruct` (with a sharding, to place the arrays; the
            stored dtype is cast to the leaf's), or None: a JSON item, or arrays as a nested dict of
            names.

        Returns:
          The items, and the step they came from: without `step`, when the newest cannot be read on every
          host, the one before it is, and a warning says so.

        Raises:
          CheckpointError: nothing saved, an item missing, a parameter of another name or shape, or a
            damaged `step`.
        """
        self.wait()
        steps = [s for s in self.steps() if s not in self._broken]
        if not steps:
            raise CheckpointError(
                f"{self.directory}: no finished checkpoint here; give a folder that holds one"
            )
        if step is not None and step not in steps:
            raise CheckpointError(f"{self.directory}: no checkpoint of step {step}; saved steps: {steps}")
        tries = steps[::-1] if step is None else [step]
        for number, candidate in enumerate(tries):
            items, reason = self._try(candidate, abstract)
            if items is not None:
                return Restored(candidate, items)
            if number + 1 == len(tries):
                earlier = [s for s in steps if s < candidate]
                advice = f"run again from step {earlier[-1]}" if earlier else "start again"
                where = self.directory / str(candidate)
                raise CheckpointError(f"{where}: broken checkpoint ({reason}); delete it and {advice}")
            before = tries[number + 1]
            message = "%s: step %d is broken (%s); going back to step %d"
            logging.warning(message, self.directory, candidate, reason, before)
            self._broken.add(candidate)
        raise AssertionError("unreachable")

    def _try(self, step: int, abstract: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str]:
        """The items of a step; None and the reason where it is damaged on any host."""
        items, reason = None, ""
        try:
            items = self._read(step, abstract)
        except CheckpointError:
            raise
        except Exception as error:  # Orbax and TensorStore raise many types for a damaged file
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        reason = next(filter(None, gather(reason)), "")  # all hosts go back to the same step, or none does
        return None if reason else items, reason

    def save(
        self,
        step: int,
        items: Mapping[str, Any],
        *,
        metadata: Mapping[str, Any] | None = None,
        score: float | None = None,
        wait: bool = False,
    ) -> None:
        """Writes `items` as step `step`, replacing one of that number, and deletes the steps past the limits.

        Args:
          step: training step, >= 0.
          items: item name -> pytree of arrays, or a JSON-able dict.
          metadata: a small JSON-able dict (what was trained, library versions).
          score: by which the best steps are retained; higher is better.
          wait: return only when the files are in place. Otherwise arrays are copied to the host before the
            return (the caller may donate them) and written in the background; the next call waits for that.

        Raises:
          CheckpointError: no arrays at all, or two leaves of one name.
        """
        self.wait()
        writer = self._open_writer()
        notes = {**(metadata or {}), **({} if score is None else {SCORE: float(score)})}
        named = {**items, **({METADATA: notes} if notes or metadata is not None else {})}
        small = {name: item for name, item in named.items() if _is_json(item)}
        arrays = {name: _flatten(name, item) for name, item in named.items() if name not in small}
        small |= {
            name: {} for name, leaves in arrays.items() if not leaves
        }  # the state of plain SGD, for one
        arrays = {name: leaves for name, leaves in arrays.items() if leaves}
        if not arrays:
            raise CheckpointError(f"{self.directory}: a checkpoint needs at least one item with arrays")
        self._pending = writer.save_checkpointables_async(
            int(step),
            arrays,
            custom_metadata=small,
            metrics=None if score is None else {SCORE: float(score)},
            force=True,
            overwrite=True,
        )
        if wait:
            self.wait()

    def wait(self) -> None:
        """Returns when the last save's files are in place; raises what went wrong in writing them."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Waits for the last save and frees the writer's threads."""
        self.wait()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_writer(self) -> ocp.training.Checkpointer:
        if self._broken and jax.process_index() == 0:  # out of the way of the steps to come, not deleted
            for step in self._broken & set(self.steps()):
                target = self.directory / f"{step}.broken"
                if target.exists():
                    target.rmtree()
                (self.directory / str(step)).rename(target)
            if self._writer is not None:
                self._writer.close()
                self._writer = None
        self._broken.clear()
        if self._writer is None:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._writer = ocp.training.Checkpointer(
                self.directory,
                preservation_policy=_preservation(self.newest, self.best),
                cleanup_tmp_directories=True,  # what a killed run left half-written
                context=_chunked(),
            )
        return self._writer

    def _read(self, step: int, abstract: Mapping[str, Any]) -> dict[str, Any]:
        where = self.directory / str(step)
        saved = ocp.checkpointables_metadata(where)
        small, arrays = saved.custom_metadata or {}, saved.metadata
        flat: dict[str, Any] = {}
        for name, tree in abstract.items():
            if name in small:
                continue
            if name not in arrays:
                raise CheckpointError(f"{where}: no item {name!r}; it holds {sorted([*arrays, *small])}")
            if arrays[name] is None:
                raise ValueError(f"the description of {name!r} is unreadable")
            flat[name] = dict(arrays[name]) if tree is None else _flatten(name, tree)
            if tree is not None:
                _check_same(f"{where}: {name}", arrays[name], flat[name])
            flat[name] = {key: _placed(leaf) for key, leaf in flat[name].items()}
        loaded = ocp.load_checkpointables(where, flat) if flat else {}
        out: dict[str, Any] = {}
        for name, tree in abstract.items():
            if name in small:
                out[name] = small[name] if tree is None or jax.tree.leaves(tree) else tree
            elif tree is None:
                out[name] = _nested(loaded[name])
            else:
                out[name] = jax.tree.unflatten(
                    jax.tree.structure(tree), [loaded[name][k] for k in flat[name]]
                )
        return out


def _chunked() -> ocp.Context:
    """Arrays are cut into chunks, so that a reader who wants one layer of a stack reads that layer only."""

    def of(_: Any, leaf: Any) -> Any:
        stack = getattr(leaf, "ndim", 0) > 2  # [layer, in, out]
        return ocp.options.ArrayOptions.Saving.StorageOptions(
            chunk_byte_size=CHUNK_BYTES, shard_axes=(0,) if stack else None
        )

    context = ocp.Context()
    context.array.saving.scoped_storage_options_creator = of
    return context


def _preservation(newest: int, best: int) -> Any:
    policies = ocp.training.preservation_policies
    latest = policies.LatestN(newest)
    if not best:
        return latest
    scored = policies.BestN(
        get_metric_fn=lambda metrics: metrics[SCORE], n=best, keep_checkpoints_without_metrics=False
    )
    return policies.AnyPreservationPolicy([latest, scored])


def _is_json(item: Any) -> bool:
    if not isinstance(item, dict):
        return False
    try:
        json.dumps(item)
    except (TypeError, ValueError):
        return False
    return True


def _flatten(name: str, tree: Any) -> dict[str, Any]:
    """Leaves by path, in the tree's own order."""
    flat: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        key = jax.tree_util.keystr(path, simple=True, separator="/")
        if key in flat:
            raise CheckpointError(f"{name}: two leaves are both named {key!r}; rename one")
        flat[key] = leaf
    return flat


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, last = path.split("/")
        node = out
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = leaf
    return out


def _placed(leaf: Any) -> Any:
    """The leaf with a sharding: one local device where it has none, whatever it was saved from."""
    # Orbax's own description of a leaf needs the devices that it was saved from.
    sharding = leaf.sharding if isinstance(leaf, jax.ShapeDtypeStruct | jax.Array) else None
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _check_same(where: str, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if missing := [k for k in wanted if k not in saved]:
        raise CheckpointError(
            f"{where}: the checkpoint lacks {missing[0]!r} ({len(missing)} such parameters); "
            "it was saved from another model, use that model's config"
        )
    if extra := [k for k in saved if k not in wanted]:
        raise CheckpointError(
            f"{where}: the model lacks {extra[0]!r} ({len(extra)} such parameters); "
            "it was saved from another model, use that model's config"
        )
    for key, leaf in wanted.items():
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            continue  # stored as its words; Orbax checks the key's kind
        have, want = tuple(getattr(saved[key], "shape", None) or ()), tuple(getattr(leaf, "shape", ()))
        if have != want:
            raise CheckpointError(
                f"{where}: {key} is {have} in the checkpoint and {want} in the model; "
                "use the config it was trained with"
            )
