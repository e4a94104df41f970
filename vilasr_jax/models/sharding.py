"""Layouts of weights and activations on a mesh with the axes data, fsdp and model.

Letters: l layer, d width of the model, f width of an MLP, q query heads x head_dim, k key-value heads x
head_dim, v vocabulary, p values of a patch, w merged patch width, b batch, t tokens, s cache slots, h
head_dim.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Shaped

from vilasr_jax.models.family import ModelConfig
from vilasr_jax.models.params import abstract, build, path_names
from vilasr_jax.models.registry import kernel_kinds


@dataclasses.dataclass(frozen=True)
class Sharding:
    """One partition spec for each kind of array; None or a missing axis is not split.

    The letters after a name are the axes: l layer, d width, v vocabulary, q and k widths of all heads, f MLP
    width, b rows, t tokens, r vision rows or all tokens, p patches or their pixels, w merged width.
    """

    embed_vd: P  # the token table, split by width (`model` first): a lookup moves no part of it
    head_dv: P
    tied_head_dv: P  # the token table where it is the output head, too
    q_weight_ldq: P
    kv_weight_ldk: P
    o_weight_lqd: P
    mlp_in_ldf: P
    mlp_out_lfd: P
    vision_qkv_ldq: P  # q, k and v of the vision tower in one matrix, not split by heads
    vision_proj_lqd: P
    patch_embed_pd: P
    merger_in_ww: P
    merger_out_wd: P
    vector_ld: P  # norms and biases, replicated
    tokens_bt: P
    embed_ids_bt: P  # token ids of the table lookup
    embed_act_btd: P  # embeddings from the lookup: each device has a part of the width
    embed_rows_btd: P  # embeddings after an all-to-all over fsdp: each device has its own rows
    act_btd: P  # activations between the decoder's blocks
    own_btd: P  # activations between blocks under context parallelism: tokens split over `model`
    mlp_act_rf: P  # activations inside an MLP; r: all tokens of a batch
    act_rpd: P  # activations of the vision tower: each device has its own images


_TRAINING = Sharding(
    embed_vd=P(None, ("model", "fsdp")),
    head_dv=P("fsdp", "model"),
    tied_head_dv=P(None, "model"),
    q_weight_ldq=P(None, "fsdp", "model"),
    kv_weight_ldk=P(None, "fsdp", "model"),
    o_weight_lqd=P(None, "model", "fsdp"),
    mlp_in_ldf=P(None, "fsdp", "model"),
    mlp_out_lfd=P(None, "model", "fsdp"),
    vision_qkv_ldq=P(None, "fsdp", None),
    vision_proj_lqd=P(None, None, "fsdp"),
    patch_embed_pd=P(None, "fsdp"),
    merger_in_ww=P("fsdp", "model"),
    merger_out_wd=P("model", "fsdp"),
    vector_ld=P(),
    tokens_bt=P(("data", "fsdp")),
    embed_ids_bt=P("data"),
    embed_act_btd=P("data", None, ("model", "fsdp")),
    embed_rows_btd=P(("data", "fsdp"), None, "model"),
    act_btd=P(("data", "fsdp")),
    own_btd=P(("data", "fsdp"), "model"),
    mlp_act_rf=P(("data", "fsdp"), "model"),
    act_rpd=P(("data", "fsdp", "model")),
)


def layout(mode: str) -> Sharding:
    """The layout of a mode, "training" or "rollout".

    Training splits weights over `fsdp` and `model`, and gathers a layer's over `fsdp` when it is used.
    Sampling reads every weight at each token, so a rollout splits them over `model` alone.

    Only weights have two layouts. The model's code lays activations out for training in both modes: while it
    samples, `constrain` drops the axes that `jax.shard_map` uses, data and fsdp.
    """
    if mode == "training":
        return _TRAINING
    if mode != "rollout":
        raise ValueError(f"a layout is for training or rollout, not {mode!r}")
    return Sharding(**{name: _without(spec, "fsdp") for name, spec in vars(_TRAINING).items()})


def _without(spec: P, axis: str) -> P:
    """The spec without `axis`: dimensions are replicated over it."""

    def remaining(axes: Any) -> Any:
        names = tuple(name for name in ((axes,) if isinstance(axes, str) else axes or ()) if name != axis)
        return names[0] if len(names) == 1 else names or None

    return P(*map(remaining, spec))


def partition_specs(params: Any, sharding: Sharding | None = None) -> Any:
    """A tree like `params` (or its `jax.eval_shape`) with the partition spec of each weight.

    Matrices have the kind that their family names for the module they are in; all else is a vector.

    Raises:
      ValueError: no family names the modules of a matrix.
    """
    sharding, kinds = _TRAINING if sharding is None else sharding, kernel_kinds()

    def spec(path, _):
        names = path_names(path)
        kind: str | None = "vector_ld"
        if "kernel" in names or "embedding" in names:
            kind = next((kinds[name] for name in reversed(names) if name in kinds), None)
        if kind is None:
            raise ValueError(f"no model family says how {'/'.join(names)} is sharded")
        return _of_factor(getattr(sharding, kind), names[-1])

    return jax.tree_util.tree_map_with_path(spec, params)


def _of_factor(spec: P, name: str) -> P:
    """The spec of a factor, "a" [.., in, rank] or "b" [.., rank, out], from that of its matrix."""
    if name not in ("a", "b") or len(spec) < 2:
        return spec
    *layers, d_in, d_out = spec
    return P(*layers, d_in, None) if name == "a" else P(*layers, None, d_out)


def fitted(spec: P, shape: tuple[int, ...], mesh: Any) -> P:
    """`spec` without the axes that do not divide their dimension of `shape`: it is replicated over them.

    Of several axes on one dimension the last are dropped until the others divide it. Axes of one device and a
    tail of None are left out, too, as they are in what a compiled program returns: a step then
    reads its own output without a recompile.

    >>> from jax.sharding import AbstractMesh
    >>> fitted(P("fsdp", "model"), (8, 9), AbstractMesh((2, 2), ("fsdp", "model")))
    PartitionSpec('fsdp',)
    """
    sizes = dict(zip(mesh.axis_names, mesh.axis_sizes, strict=True))

    def remaining(axes: Any, length: int) -> Any:
        names = tuple(n for n in ((axes,) if isinstance(axes, str) else axes or ()) if sizes[n] > 1)
        while length % math.prod(sizes[name] for name in names):
            names = names[:-1]
        return names[0] if len(names) == 1 else names or None

    cut = [remaining(axes, length) for axes, length in zip(spec, shape, strict=False)]
    while cut and cut[-1] is None:
        cut.pop()
    return P(*cut)


def param_shardings(params: Any, mesh: Mesh, sharding: Sharding | None = None) -> Any:
    """A tree like `params` (or its `jax.eval_shape`) with the `NamedSharding` of each weight on `mesh`."""

    def place(leaf, spec: P) -> NamedSharding:
        return NamedSharding(mesh, fitted(spec, leaf.shape, mesh))

    return jax.tree.map(place, params, partition_specs(params, sharding))


def random_params(config: ModelConfig, seed: int, mesh: Mesh) -> Any:
    """Random weights of a config, created on the devices that hold them; the same values on every mesh."""

    def create() -> Any:
        return nnx.split(build(config, seed))[1]

    return jax.jit(create, out_shardings=param_shardings(abstract(config)[1], mesh))()


def constrain(x: Shaped[Array, "*shape"], spec: P) -> Shaped[Array, "*shape"]:
    """`x` laid out as `spec` says, on the mesh that the caller has set; `x` itself where none is.

    Axes that `jax.shard_map` uses are left out, and those that do not cut `x` evenly.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    free = set(mesh.auto_axes)
    if not free:
        return x

    def remaining(axes: Any) -> Any:
        names = tuple(name for name in ((axes,) if isinstance(axes, str) else axes or ()) if name in free)
        return names or None

    return jax.lax.with_sharding_constraint(x, fitted(P(*map(remaining, spec)), x.shape, mesh))


def split_by_heads(attend: Callable, rows: int, heads: int, kv_heads: int) -> Callable:
    """`attend(q [b,t,n,h], k [b,t,kv,h], v, segment_ids [b,t])` run by each device on its own rows and heads.

    XLA can't split a Pallas kernel by itself. Heads are split over `model` where it divides both numbers of
    heads; without a mesh nothing changes.
    """
    return _split(attend, rows, ("data", "fsdp"), "model", math.gcd(heads, kv_heads))


def split_by_rows(attend: Callable, rows: int) -> Callable:
    """`attend` as in `split_by_heads`, with rows split over `model` too, heads not at all."""
    return _split(attend, rows, ("data", "fsdp", "model"), None, 1)


def _split(attend: Callable, rows: int, over: tuple[str, ...], by: str | None, heads: int) -> Callable:
    mesh = jax.sharding.get_abstract_mesh()
    free = () if mesh.empty or mesh.size == 1 else mesh.auto_axes
    if not free:
        return attend
    wanted = P(tuple(name for name in over if name in free), None, by if by in free else None)
    spec = fitted(wanted, (rows, 1, heads), mesh)
    return jax.shard_map(
        attend,
        in_specs=(spec, spec, spec, P(*spec[:1])),
        out_specs=spec,
        axis_names=set(free),
        check_vma=False,
    )
