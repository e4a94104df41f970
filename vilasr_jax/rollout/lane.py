"""Host state of the slots, and the queue of conversations that have not begun."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from vilasr_jax.drawing import DrawingSession
from vilasr_jax.rollout.batch import Incoming
from vilasr_jax.rollout.compiled_steps import ComputedPrompts, RolloutState
from vilasr_jax.rollout.conversation import Conversation, Request
from vilasr_jax.rollout.pool import DrawingTask

Counters = defaultdict[str, float]  # see `Engine`; a name that was never counted is 0


@dataclass
class Lane:
    """A part of the engine's slots, with its own device state."""

    state: RolloutState
    live: dict[int, Conversation] = field(default_factory=dict)  # live conversations by slot
    drawing: dict[int, DrawingTask] = field(default_factory=dict)  # by slot: the drawing of its reply
    failed: dict[int, BaseException] = field(default_factory=dict)  # by slot: why it is drawn again
    inserts: dict[int, list[Incoming]] = field(default_factory=dict)  # by slot: pieces of a reply to insert


@dataclass
class Prompt:
    """A request's prompt, and by shard where it is computed: `ComputedPrompts`, and the row in that shard."""

    incoming: Incoming
    computed: dict[int, tuple[ComputedPrompts, int]] = field(default_factory=dict)


class ConversationQueue:
    """Conversations that have not begun; requests are fetched one at a time, when a slot is free."""

    def __init__(
        self,
        source: Callable[[bool], tuple[int, Request] | None],
        prompt: Callable[[Request, DrawingSession], Incoming],
        max_tokens: int,
    ):
        self.source, self.make_prompt, self.max_tokens = source, prompt, max_tokens
        self.number, self.sample = 0, 0
        self.request: Request | None = None
        self.prompt: Prompt | None = None  # the prompt of the newest request

    def fetch(self, wait: bool) -> bool:
        """Fetches a request where the last has no samples left; whether there is a conversation to begin."""
        while self.request is None or self.sample >= self.request.samples:
            given = self.source(wait)
            self.request, self.sample, self.prompt = None, 0, None
            if given is None:
                return False
            self.number, self.request = given
        return True

    def begin(self) -> tuple[Conversation, Prompt]:
        """Begins the next conversation, after `fetch` has returned True."""
        assert self.request is not None, "`fetch` says whether there is one"
        session = self.request.session()
        if self.prompt is None:
            self.prompt = Prompt(self.make_prompt(self.request, session))
        key = (self.number, self.sample)
        self.sample += 1
        return Conversation(key, self.request, session, self.prompt.incoming, self.max_tokens), self.prompt
