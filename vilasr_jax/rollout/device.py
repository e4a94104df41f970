"""The compiled calls of the rollout engine: prefill, insert, decode.

State lives on the device. A slot is one live conversation, with a cache length of its own:

    slot 0   [prompt ......][sampled ...][inserted: text + drawn image][sampled .]
    slot 1   [prompt ..........][sampled ......................]
    slot 2   (free)

`prefill` computes each distinct prompt once and copies its cache to all the slots that share it. `insert`
runs only the new turn's tokens, at each slot's own offset. Both end by sampling the turn's first token.
`decode` goes on, one token a step, until enough of the rows have stopped.

The slots are split over the mesh's data and fsdp axes; each shard works on its own slots alone
(`jax.shard_map`), with no communication but that of tensor parallelism. Slot and source numbers count inside
a shard. Padding rows carry the slot number one past the shard's last: their reads are clipped and their
writes dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vilasr_jax.config import SamplingSection
from vilasr_jax.models.qwen2_5_vl import KVCache, ModelConfig, VisionInput, init_cache
from vilasr_jax.rollout.sampling import sample

_ROWS = P(("data", "fsdp"))  # split by slot
_POSITIONS = P(None, ("data", "fsdp"))


class RolloutState(NamedTuple):
    """Device state of b slots; `n` is the longest turn."""

    cache: KVCache
    token: jax.Array  # [b] int32, sampled last, not yet in the cache
    position: jax.Array  # [b] int32, the M-RoPE position of that token
    seed: jax.Array  # [b] int32, the trajectory's own random stream
    count: jax.Array  # [b] int32, tokens sampled so far in the trajectory
    active: jax.Array  # [b] bool, still writing its turn
    turn_length: jax.Array  # [b] int32, tokens sampled in this turn
    turn_limit: jax.Array  # [b] int32
    turn_tokens: jax.Array  # [b, n] int32
    turn_logprobs: jax.Array  # [b, n] float32
    temperature: jax.Array  # [b] float32, the trajectory's own; read where conversations bring their own
    top_p: jax.Array  # [b] float32, likewise


class NewTurn(NamedTuple):
    """Tokens that enter the caches of m rows before the model writes."""

    tokens: jax.Array  # [m, t] int32, right-padded
    positions: jax.Array  # [3, m, t] int32
    length: jax.Array  # [m] int32
    image_index: jax.Array  # [m, t] int32, -1 for text
    vision: VisionInput | None  # None where the bucket for images is 0


class Rows(NamedTuple):
    """Which slots start a turn, and what they start it with."""

    slots: jax.Array  # [m] int32, in the shard; one past its last: padding
    source: jax.Array  # [m] int32, the row of the shard's NewTurn that each takes
    position: jax.Array  # [m] int32, of the first token to be sampled
    turn_limit: jax.Array  # [m] int32
    seed: jax.Array  # [m] int32 (used by prefill)
    temperature: jax.Array  # [m] float32 (used by prefill)
    top_p: jax.Array  # [m] float32 (used by prefill)


class Calls:
    """The three compiled functions for one model and sampling setting."""

    def __init__(
        self,
        config: ModelConfig,
        graphdef: nnx.GraphDef,
        sampling: SamplingSection,
        suppressed: jax.Array,
        stop_ids: tuple[int, ...],
        decode_steps: int,
        stop_share: float,
        mesh: Mesh,
        own_sampling: bool = False,
    ):
        self.config, self.graphdef, self.sampling = config, graphdef, sampling
        self.own_sampling = own_sampling
        self.suppressed, self.stop_ids = suppressed, stop_ids
        self.decode_steps, self.stop_share = decode_steps, stop_share
        self.mesh = mesh
        self.prefill = self._compiled(self._prefill, NewTurn(_ROWS, _POSITIONS, _ROWS, _ROWS, _ROWS), _ROWS)
        self.insert = self._compiled(self._insert, NewTurn(_ROWS, _POSITIONS, _ROWS, _ROWS, _ROWS), _ROWS)
        self.decode = self._compiled(self._decode)

    def _compiled(self, call: Callable, *specs: Any) -> Callable:
        """jit of `call(params, state, key, ...)`, shard by shard over the slots; the state is donated."""
        mapped = jax.shard_map(
            call,
            mesh=self.mesh,
            in_specs=(P(), _ROWS, P(), *specs),
            out_specs=_ROWS,
            axis_names={"data", "fsdp"},
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=1)

    def init_state(self, slots: int, max_len: int) -> RolloutState:
        """Empty slots with room for `max_len` tokens each."""

        def zeros() -> jax.Array:  # one buffer each: they are donated
            return jnp.zeros(slots, jnp.int32)

        state = RolloutState(
            cache=init_cache(self.config, slots, max_len, jnp.dtype(self.config.dtype)),
            token=zeros(),
            position=zeros(),
            seed=zeros(),
            count=zeros(),
            active=jnp.zeros(slots, bool),
            turn_length=zeros(),
            turn_limit=zeros(),
            turn_tokens=jnp.zeros((slots, self.sampling.max_turn_tokens), jnp.int32),
            turn_logprobs=jnp.zeros((slots, self.sampling.max_turn_tokens), jnp.float32),
            temperature=jnp.zeros(slots, jnp.float32),
            top_p=jnp.ones(slots, jnp.float32),
        )
        return jax.device_put(state, NamedSharding(self.mesh, _ROWS))

    def _prefill(self, params, state: RolloutState, key, turn: NewTurn, rows: Rows) -> RolloutState:
        model = nnx.merge(self.graphdef, params)
        m, t = turn.tokens.shape
        fresh = init_cache(self.config, m, t, jnp.dtype(self.config.dtype))
        hidden, fresh = self._forward(model, turn, fresh)
        cache = state.cache

        def copy(whole: jax.Array, new: jax.Array) -> jax.Array:
            return whole.at[rows.slots, :, :t].set(new[rows.source], mode="drop")

        cache = KVCache(
            k=tuple(map(copy, cache.k, fresh.k)),
            v=tuple(map(copy, cache.v, fresh.v)),
            length=cache.length.at[rows.slots].set(fresh.length[rows.source], mode="drop"),
        )
        state = state._replace(
            cache=cache,
            seed=state.seed.at[rows.slots].set(rows.seed, mode="drop"),
            count=state.count.at[rows.slots].set(0, mode="drop"),
            temperature=state.temperature.at[rows.slots].set(rows.temperature, mode="drop"),
            top_p=state.top_p.at[rows.slots].set(rows.top_p, mode="drop"),
        )
        return self._first_token(model, state, key, hidden[rows.source], rows)

    def _insert(self, params, state: RolloutState, key, turn: NewTurn, rows: Rows) -> RolloutState:
        model = nnx.merge(self.graphdef, params)
        part = jax.tree.map(lambda x: x.at[rows.slots].get(mode="clip"), state.cache)
        hidden, part = self._forward(model, turn, part)
        cache = jax.tree.map(lambda whole, new: whole.at[rows.slots].set(new, mode="drop"), state.cache, part)
        return self._first_token(model, state._replace(cache=cache), key, hidden, rows)

    def _decode(self, params, state: RolloutState, key) -> RolloutState:
        model = nnx.merge(self.graphdef, params)
        enough = jnp.floor((1 - self.stop_share) * state.active.sum()).astype(jnp.int32)
        b = state.token.shape[0]

        def going(carry):
            step, state = carry
            return (step < self.decode_steps) & (state.active.sum() > enough)

        def body(carry):
            step, state = carry
            x = model.embed(state.token[:, None], None, None)
            positions = jnp.broadcast_to(state.position[None, :, None], (3, b, 1))
            hidden, cache = model.extend(x, positions, state.active[:, None], state.cache)
            state = state._replace(cache=cache, position=state.position + state.active)
            return step + 1, self._write(model, state, key, hidden[:, 0], state.active)

        return jax.lax.while_loop(going, body, (jnp.int32(0), state))[1]

    def _forward(self, model, turn: NewTurn, cache: KVCache) -> tuple[jax.Array, KVCache]:
        """Runs the new tokens; returns the hidden state at each row's last one, [m, d], and the cache."""
        t = turn.tokens.shape[1]
        vision = None if turn.vision is None else model.encode_vision(turn.vision)
        x = model.embed(turn.tokens, turn.image_index, vision)
        valid = jnp.arange(t)[None] < turn.length[:, None]
        hidden, cache = model.extend(x, turn.positions, valid, cache)
        last = jnp.maximum(turn.length - 1, 0)
        return jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0], cache

    def _first_token(self, model, state: RolloutState, key, hidden: jax.Array, rows: Rows) -> RolloutState:
        """Opens a turn in `rows.slots`, whose last hidden states are `hidden` [m, d]."""
        b = state.token.shape[0]
        opened = jnp.zeros(b, bool).at[rows.slots].set(True, mode="drop")
        state = state._replace(
            position=state.position.at[rows.slots].set(rows.position, mode="drop"),
            turn_limit=state.turn_limit.at[rows.slots].set(rows.turn_limit, mode="drop"),
            turn_length=jnp.where(opened, 0, state.turn_length),
            active=state.active | opened,
        )
        whole = jnp.zeros((b, hidden.shape[-1]), hidden.dtype).at[rows.slots].set(hidden, mode="drop")
        return self._write(model, state, key, whole, opened)

    def _write(self, model, state: RolloutState, key, hidden: jax.Array, rows: jax.Array) -> RolloutState:
        """Samples a token for each of `rows` ([b] bool) from hidden [b, d] and records it."""
        keys = jax.vmap(lambda seed, n: jax.random.fold_in(jax.random.fold_in(key, seed), n))(
            state.seed, state.count
        )
        logits = model.logits(hidden[:, None])[:, 0]
        own = (state.temperature, state.top_p) if self.own_sampling else None
        token, logprob = sample(logits, keys, self.suppressed, self.sampling, own)
        b, n = state.turn_tokens.shape
        at = (jnp.arange(b), jnp.where(rows, state.turn_length, n))  # past the end: dropped
        length = state.turn_length + rows
        stopped = jnp.isin(token, jnp.array(self.stop_ids)) | (length >= state.turn_limit)
        return state._replace(
            token=jnp.where(rows, token, state.token),
            count=state.count + rows,
            turn_length=length,
            active=state.active & ~(rows & stopped),
            turn_tokens=state.turn_tokens.at[at].set(token, mode="drop"),
            turn_logprobs=state.turn_logprobs.at[at].set(logprob, mode="drop"),
        )
