"""The compiled calls of the rollout engine: prefill, start, insert, decode.

State lives on the device. A slot is one live conversation, with a cache length of its own:

    slot 0   [prompt ......][sampled ...][inserted: text + drawn image][sampled .]
    slot 1   [prompt ..........][sampled ......................]
    slot 2   (free)

`prefill` computes each distinct prompt once; `start` copies its cache to the slots that begin with it, now or
when they become free. `insert` runs only the new tokens, at each slot's own offset; a reply that is
larger than the buckets comes in several inserts. `start` and the last `insert` end by sampling the turn's
first token; `decode` continues, one token per step, until enough of the rows have stopped.

The slots are split over the mesh's data and fsdp axes; each shard works on its own slots alone
(`jax.shard_map`), with no communication but that of tensor parallelism: the model axis is left to the
compiler, which propagates the layout of the parameters and of the cache's heads. Slots and sources are
numbered inside a shard. Padding rows carry the slot number one past the shard's last: their reads are clipped
and their writes dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vilasr_jax.config import SamplingSection
from vilasr_jax.models import ModelConfig, family_of
from vilasr_jax.models.params import decoder_module
from vilasr_jax.parallel.memory import with_shardings
from vilasr_jax.rollout.batch import NewTokens
from vilasr_jax.rollout.sampling import sample
from vilasr_jax.rollout.sampling_weights import SamplingWeights

_ROWS = P(("data", "fsdp"))  # split by slot
_POSITIONS = P(None, ("data", "fsdp"))

HostOrDevice = np.ndarray | jax.Array  # written by the host, read in a compiled step


class RolloutState(NamedTuple):
    """Device state of b slots; `n` is the longest turn."""

    cache: Any  # the model family's cache, b rows
    token: jax.Array  # [b] int32, the token sampled last, not yet in the cache
    position: jax.Array  # [b] int32, the M-RoPE position of that token
    seed: jax.Array  # [b] int32, the trajectory's own random stream
    sampled: jax.Array  # [b] int32, tokens sampled so far in the trajectory
    active: jax.Array  # [b] bool, the turn isn't finished
    turn_length: jax.Array  # [b] int32, tokens sampled in this turn
    turn_limit: jax.Array  # [b] int32
    turn_tokens: jax.Array  # [b, n] int32
    turn_logprobs: jax.Array  # [b, n] float32
    temperature: jax.Array  # [b] float32, the trajectory's own; read with `engine.per_request_sampling`
    top_p: jax.Array  # [b] float32, likewise
    work: jax.Array  # [shards, 2] int32: decode steps so far, and tokens sampled in them


class ComputedPrompts(NamedTuple):
    """Caches and last hidden states of m prompts; the samples of a prompt start from a copy."""

    cache: Any  # the model family's cache, m rows
    hidden: jax.Array  # [m, d], at the last token of each


class TurnStarts(NamedTuple):
    """Which slots start a turn, and what they start it with."""

    slots: HostOrDevice  # [m] int32, in the shard; one past its last: padding
    source: HostOrDevice  # [m] int32, the row of the shard's ComputedPrompts that each copies (for `start`)
    position: HostOrDevice  # [m] int32, M-RoPE position of the first token to be sampled
    turn_limit: HostOrDevice  # [m] int32; 0: more will be inserted before the model writes
    seed: HostOrDevice  # [m] int32 (for `start`)
    temperature: HostOrDevice  # [m] float32 (for `start`)
    top_p: HostOrDevice  # [m] float32 (for `start`)


class CompiledSteps:
    """The four compiled functions for one model and sampling setting."""

    def __init__(
        self,
        config: ModelConfig,
        graphdef: nnx.GraphDef,
        *,
        sampling: SamplingSection,
        suppressed: HostOrDevice,
        stop_ids: tuple[int, ...],
        decode_steps: int,
        stop_fraction: float,
        mesh: Mesh,
        per_request_sampling: bool = False,
    ):
        self.config, self.graphdef, self.sampling = config, graphdef, sampling
        self.family = family_of(config)
        self.per_request_sampling = per_request_sampling
        self.suppressed, self.stop_ids = suppressed, stop_ids
        self.decode_steps, self.stop_fraction = decode_steps, stop_fraction
        self.mesh = mesh
        self.shards = mesh.shape["data"] * mesh.shape["fsdp"]
        heads = config.num_kv_heads % mesh.shape["model"] == 0
        # how a shard's keys and values are split
        self._heads = P(None, "model") if heads and mesh.shape["model"] > 1 else None
        self._empty: dict[tuple[int, int], Callable[[], RolloutState]] = {}
        self.announce: Callable[[str], None] | None = None  # called with a step's name before it is compiled
        specs: dict[str, Any] = dict.fromkeys(NewTokens._fields, _ROWS) | {"positions": _POSITIONS}
        new_specs = NewTokens(**specs)
        self.prefill = self._compiled("prefill", self._prefill, P(), new_specs)
        self.start = self._compiled("start", self._start, P(), _ROWS, P(), _ROWS, _ROWS, donate=1)
        self.insert = self._compiled("insert", self._insert, P(), _ROWS, P(), new_specs, _ROWS, donate=1)
        self.decode = self._compiled("decode", self._decode, P(), _ROWS, P(), donate=1)

    def _compiled(self, name: str, call: Callable, *specs: Any, donate: int | None = None) -> Callable:
        """jit of `call`, mapped over the shards of the slots; the state is donated."""

        @wraps(call)
        def traced(*args: Any) -> Any:  # runs when the arguments have new shapes
            if self.announce:
                self.announce(name)
            return call(*args)

        mapped = jax.shard_map(
            traced,
            mesh=self.mesh,
            in_specs=specs,
            out_specs=_ROWS,
            axis_names={"data", "fsdp"},
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=() if donate is None else donate)

    def init_state(self, slots: int, max_len: int) -> RolloutState:
        """Empty slots of `max_len` tokens each, created on the devices that hold them."""
        if (slots, max_len) not in self._empty:
            places = jax.tree.map(lambda x: x.sharding, self.abstract_state(slots, max_len))
            empty = partial(self._empty_state, slots, max_len)
            self._empty[slots, max_len] = jax.jit(empty, out_shardings=places)
        return self._empty[slots, max_len]()

    def abstract_state(self, slots: int, max_len: int) -> RolloutState:
        """Shapes, dtypes and shardings of what `init_state` creates: slots and a cache's heads are split.

        Arrays of rank 4 are a cache's keys and values [b, kv, s, h], see `ModelFamily.init_cache`.
        """
        state = jax.eval_shape(partial(self._empty_state, slots, max_len))
        rows = NamedSharding(self.mesh, _ROWS)
        heads = NamedSharding(self.mesh, P(*_ROWS, *(self._heads or ())[1:]))
        return with_shardings(state, jax.tree.map(lambda x: heads if x.ndim == 4 else rows, state))

    def _empty_state(self, slots: int, max_len: int) -> RolloutState:
        def zeros() -> jax.Array:  # one buffer each: they are donated
            return jnp.zeros(slots, jnp.int32)

        return RolloutState(
            cache=self.family.init_cache(self.config, slots, max_len, jnp.dtype(self.config.dtype)),
            token=zeros(),
            position=zeros(),
            seed=zeros(),
            sampled=zeros(),
            active=jnp.zeros(slots, bool),
            turn_length=zeros(),
            turn_limit=zeros(),
            turn_tokens=jnp.zeros((slots, self.sampling.max_turn_tokens), jnp.int32),
            turn_logprobs=jnp.zeros((slots, self.sampling.max_turn_tokens), jnp.float32),
            temperature=jnp.zeros(slots, jnp.float32),
            top_p=jnp.ones(slots, jnp.float32),
            work=jnp.zeros((self.shards, 2), jnp.int32),
        )

    def _prefill(self, params, new: NewTokens) -> ComputedPrompts:
        model, layers = self._model(params)
        m, t = new.tokens.shape
        empty = self.family.init_cache(self.config, m, t, self.config.dtype)
        hidden, cache = self._forward(model, layers, new, empty)
        return ComputedPrompts(self._laid_out(cache), hidden)

    def _start(
        self, params, state: RolloutState, key, prompts: ComputedPrompts, starts: TurnStarts
    ) -> RolloutState:
        cache = state.cache.copy_rows(prompts.cache, starts.slots, starts.source)
        state = state._replace(
            cache=self._laid_out(cache),
            seed=state.seed.at[starts.slots].set(starts.seed, mode="drop"),
            sampled=state.sampled.at[starts.slots].set(0, mode="drop"),
            temperature=state.temperature.at[starts.slots].set(starts.temperature, mode="drop"),
            top_p=state.top_p.at[starts.slots].set(starts.top_p, mode="drop"),
        )
        model, _ = self._model(params)
        return self._open_turns(model, state, key, prompts.hidden[starts.source], starts)

    def _insert(self, params, state: RolloutState, key, new: NewTokens, starts: TurnStarts) -> RolloutState:
        model, layers = self._model(params)
        if state.token.shape[0] == 1:  # no copy of the only slot: padding has no tokens, and changes nothing
            hidden, cache = self._forward(model, layers, new, state.cache)
            return self._open_turns(model, state._replace(cache=self._laid_out(cache)), key, hidden, starts)
        part = jax.tree.map(lambda x: x.at[starts.slots].get(mode="clip"), state.cache)
        hidden, part = self._forward(model, layers, new, part)
        cache = jax.tree.map(lambda old, new: old.at[starts.slots].set(new, mode="drop"), state.cache, part)
        return self._open_turns(model, state._replace(cache=self._laid_out(cache)), key, hidden, starts)

    def _decode(self, params, state: RolloutState, key) -> RolloutState:
        model, layers = self._model(params)
        min_active = jnp.floor((1 - self.stop_fraction) * state.active.sum()).astype(jnp.int32)
        b = state.token.shape[0]

        def unfinished(carry):
            step, state = carry
            return (step < self.decode_steps) & (state.active.sum() > min_active)

        def body(carry):
            step, state = carry
            x = model.embed(state.token[:, None], None, None)
            positions = jnp.broadcast_to(state.position[None, :, None], (3, b, 1))
            hidden, cache = model.extend(x, positions, state.active[:, None], state.cache, layers)
            work = state.work + jnp.stack([1, state.active.sum()]).astype(jnp.int32)
            state = state._replace(cache=cache, position=state.position + state.active, work=work)
            return step + 1, self._sample_and_record(model, state, key, hidden[:, 0], state.active)

        state = jax.lax.while_loop(unfinished, body, (jnp.int32(0), state))[1]
        return state._replace(cache=self._laid_out(state.cache))

    def _model(self, params: SamplingWeights) -> tuple[Any, list[Any]]:
        """The model, and its decoder layers as modules of their own."""
        model = nnx.merge(self.graphdef, params.rest)
        one = nnx.graphdef(decoder_module(model))
        return model, [nnx.merge(one, layer) for layer in params.layers]

    def _laid_out(self, cache: Any) -> Any:
        """The cache with its heads split over the model axis, where they divide (see `abstract_state`)."""
        if self._heads is None:
            return cache

        def split(x: jax.Array) -> jax.Array:
            return jax.lax.with_sharding_constraint(x, self._heads) if x.ndim == 4 else x

        return jax.tree.map(split, cache)

    def _forward(self, model, layers, new: NewTokens, cache: Any) -> tuple[jax.Array, Any]:
        """Runs the new tokens; returns the hidden state at each row's last one, [m, d], and the cache."""
        m, t = new.tokens.shape
        if new.vision is None:
            x = model.embed(new.tokens)
        else:  # the shard's vision rows hold the images of all its rows
            vision = model.encode_vision(new.vision)
            flat = (new.tokens.reshape(1, m * t), new.image_index.reshape(1, m * t))
            x = model.embed(*flat, vision).reshape(m, t, -1)
        valid = jnp.arange(t)[None] < new.length[:, None]
        hidden, cache = model.extend(x, new.positions, valid, cache, layers)
        last = jnp.maximum(new.length - 1, 0)
        return jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0], cache

    def _open_turns(
        self, model, state: RolloutState, key, hidden: jax.Array, starts: TurnStarts
    ) -> RolloutState:
        """Opens a turn in `starts.slots`, whose last hidden states are `hidden` [m, d]."""
        b = state.token.shape[0]
        opened = jnp.zeros(b, bool).at[starts.slots].set(starts.turn_limit > 0, mode="drop")
        state = state._replace(
            position=state.position.at[starts.slots].set(starts.position, mode="drop"),
            turn_limit=state.turn_limit.at[starts.slots].set(starts.turn_limit, mode="drop"),
            turn_length=jnp.where(opened, 0, state.turn_length),
            active=state.active | opened,
        )
        by_slot = jnp.zeros((b, hidden.shape[-1]), hidden.dtype).at[starts.slots].set(hidden, mode="drop")
        return self._sample_and_record(model, state, key, by_slot, opened)

    def _sample_and_record(
        self, model, state: RolloutState, key, hidden: jax.Array, rows: jax.Array
    ) -> RolloutState:
        """Samples a token for each of `rows` ([b] bool) from hidden [b, d] and records it."""
        keys = jax.vmap(lambda seed, n: jax.random.fold_in(jax.random.fold_in(key, seed), n))(
            state.seed, state.sampled
        )
        logits = model.logits(hidden[:, None])[:, 0]
        own = (state.temperature, state.top_p) if self.per_request_sampling else None
        token, logprob = sample(logits, keys, self.suppressed, self.sampling, own)
        b, n = state.turn_tokens.shape
        at = (jnp.arange(b), jnp.where(rows, state.turn_length, n))  # past the end: dropped
        length = state.turn_length + rows
        stopped = jnp.isin(token, jnp.array(self.stop_ids)) | (length >= state.turn_limit)
        return state._replace(
            token=jnp.where(rows, token, state.token),
            sampled=state.sampled + rows,
            turn_length=length,
            active=state.active & ~(rows & stopped),
            turn_tokens=state.turn_tokens.at[at].set(token, mode="drop"),
            turn_logprobs=state.turn_logprobs.at[at].set(logprob, mode="drop"),
        )
