"""The conversations of a reinforcement learning step: groups of samples of one question, with advantages.

On several hosts each samples its own questions. Every host gets the rewards and lengths of all conversations,
and of those that an update trains on the ids, log-probabilities and turns, but no images: the host that
trains on them draws them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vilasr_jax.config import RLSection
from vilasr_jax.drawing import drawing_metrics, metric_sums
from vilasr_jax.errors import Stopped
from vilasr_jax.evaluation import score_all
from vilasr_jax.parallel import gather
from vilasr_jax.rollout import Request, Trajectory
from vilasr_jax.training import interrupt
from vilasr_jax.training.advantages import group_advantages
from vilasr_jax.training.failed_prefixes import FailedPrefix, failed_prefix, resumed
from vilasr_jax.training.rollouts import gather_conversations
from vilasr_jax.training.run import Run

CUT_OFF = ("token_limit", "truncated", "insert_limit")  # stop reasons: a length limit was reached
Key = tuple[int, int]  # of a group: the round, and the question's number in it


class Outcome(NamedTuple):
    """What every host knows about a conversation."""

    reward: float
    tokens: int  # sampled
    cut_off: bool  # by a length limit


@dataclass
class Rounds:
    """What the rounds of a step have sampled.

    Attributes:
      requests: the questions of all hosts.
      mine: this host's groups, all that were sampled.
      kept_groups: the groups of all hosts that may be trained on.
    """

    requests: dict[Key, Request]
    mine: dict[Key, list[Trajectory]]
    kept_groups: dict[Key, list[Outcome]]


@dataclass
class Samples:
    """The conversations of a step, numbered over all hosts.

    Attributes:
      trajectories: this host's, by number.
      with_gradient: those of all hosts that have a gradient, by number.
      rewards, advantages: [n] float32, of all hosts' conversations.
      tokens: [n] int, sampled tokens of each.
      counted: [n] bool, those in the loss.
      failed: beginnings of failed conversations, for the next step's recovery.
      metrics: name -> (sum, count) over all sampled conversations.
    """

    trajectories: dict[int, Trajectory]
    with_gradient: dict[int, Trajectory]
    rewards: np.ndarray
    advantages: np.ndarray
    tokens: np.ndarray
    counted: np.ndarray
    failed: list[FailedPrefix]
    metrics: dict[str, tuple[float, float]]


def overlong_penalty(tokens: int, section: RLSection) -> float:
    """How much a conversation's length reduces its reward: 0 up to the buffer, rising linearly to
    `overlong_penalty` at its end (DAPO's soft overlong punishment, arXiv 2503.14476, equation 13).

    >>> section = RLSection(overlong_buffer=100, overlong_penalty=0.5)
    >>> [overlong_penalty(n, section) for n in (18332, 18382, 18432)]
    [0.0, 0.25, 0.5]
    """
    if not section.overlong_buffer:
        return 0.0
    over = tokens - (section.sampling.max_tokens - section.overlong_buffer)
    return section.overlong_penalty * min(max(over / section.overlong_buffer, 0.0), 1.0)


def collect(run: Run, params: Any, step: int, pool: Sequence[FailedPrefix] = ()) -> Samples:
    """Samples and scores the conversations of a step; the same ones on any number of hosts.

    With `refill`, groups whose rewards are all equal are dropped and replaced by more questions (DAPO's
    dynamic sampling), in at most `refill` further rounds; the step is the groups found by then.

    Args:
      run: the job and its parts.
      params: the policy, in the training layout.
      step: the step's number, from 1.
      pool: beginnings of failed conversations; some replace a question (see `recovery`).

    Raises:
      Stopped: after a stop request; the step is discarded.
    """
    section = run.job.rl
    rounds = _sample_rounds(run, params, step, pool)
    order = sorted(rounds.kept_groups)[: section.prompts]
    outcomes = [outcome for key in order for outcome in rounds.kept_groups[key]]
    trajectories = {
        place * section.group + k: trajectory
        for place, key in enumerate(order)
        for k, trajectory in enumerate(rounds.mine.get(key, ()))
    }
    rewards = np.array([outcome.reward for outcome in outcomes], np.float32)
    advantages = group_advantages(rewards, section.group, section.advantage)
    counted = np.array([section.overlong != "mask" or not outcome.cut_off for outcome in outcomes], bool)
    gradient = _has_gradient(section, advantages, counted)
    sampled = [trajectory for group in rounds.mine.values() for trajectory in group]
    return Samples(
        trajectories=trajectories,
        with_gradient=gather_conversations(
            {i: trajectory for i, trajectory in trajectories.items() if gradient[i]},
            lambda i: rounds.requests[order[i // section.group]],
        ),
        rewards=rewards,
        advantages=advantages,
        tokens=np.array([outcome.tokens for outcome in outcomes], np.int64),
        counted=counted,
        failed=_failed(run.job.seed, step, rounds.mine) if section.recovery else [],
        metrics=_sum_over_hosts(rollout_metrics(sampled, section.group)),
    )


def _sample_rounds(run: Run, params: Any, step: int, pool: Sequence[FailedPrefix]) -> Rounds:
    """Samples and scores round after round, until there are enough groups; see `collect`."""
    section = run.job.rl
    rounds = Rounds({}, {}, {})
    for round_number in range(section.refill + 1):
        requests = _requests(run, step, round_number, () if round_number else pool)
        rounds.requests |= {(round_number, i): request for i, request in enumerate(requests)}
        found = _sample_round(run, params, step, round_number, requests)
        rounds.mine |= found
        for part in gather([[number, [_outcome(t) for t in group]] for (_, number), group in found.items()]):
            for number, values in part:
                outcomes = [Outcome(*value) for value in values]  # other hosts' come as lists
                if not section.refill or len({outcome.reward for outcome in outcomes}) > 1:
                    rounds.kept_groups[round_number, number] = outcomes
        if len(rounds.kept_groups) >= section.prompts:
            break
    return rounds


def _has_gradient(section: RLSection, advantages: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """[n] bool: an advantage of 0 gives no gradient from the reward."""
    if section.kl_weight or section.entropy_weight:
        return counted
    return counted & (advantages != 0)


def _failed(seed: int, step: int, mine: dict[Key, list[Trajectory]]) -> list[FailedPrefix]:
    """A beginning of a failed conversation about each question where there is one, over all hosts."""
    found = []
    for (round_number, number), group in mine.items():
        rng = np.random.default_rng([seed, step, round_number, number])
        prefixes = [failed_prefix(trajectory, rng) for trajectory in group]
        found += [[round_number, number, prefix.to_json()] for prefix in prefixes if prefix][:1]
    everyones = sorted(line for part in gather(found) for line in part)
    return [FailedPrefix.from_json(value) for *_, value in everyones]


def first_row(section: RLSection, step: int, round_number: int) -> int:
    """The number of the first question of a step's round."""
    return ((step - 1) * (section.refill + 1) + round_number) * section.prompts


def _requests(run: Run, step: int, round_number: int, pool: Sequence[FailedPrefix]) -> list[Request]:
    """The questions of one round, of all hosts."""
    section = run.job.rl
    rows = run.questions.rows("rl", section.prompts, first_row(section, step, round_number))
    chosen = np.random.default_rng([run.job.seed, step, round_number]).permutation(len(pool))
    replayed = [pool[i] for i in chosen[: int(section.recovery * section.prompts)]]
    for i, prefix in enumerate(replayed):
        rows[i] = run.questions.row("rl", prefix.source)
    first = round_number * section.prompts * section.group
    requests = run.questions.requests(rows, samples=section.group, seed=first)
    for i, prefix in enumerate(replayed):
        requests[i] = resumed(requests[i], prefix)
    return requests


def _sample_round(
    run: Run, params: Any, step: int, round_number: int, requests: Sequence[Request]
) -> dict[Key, list[Trajectory]]:
    """This host's groups of one round."""
    section = run.job.rl
    number, count = run.batching.host
    try:
        mine = requests[number::count]
        key = run.rollouts.key("rl", step)
        found = run.rollouts.sample_here(section.sampling, params, mine, key)
    except Stopped:
        found = []
    if interrupt.stop_requested():
        raise Stopped
    score_all(found, run.reward)
    for trajectory in found:
        if penalty := overlong_penalty(len(trajectory.tokens), section):
            trajectory.reward["overlong"] = -penalty
            trajectory.reward["total"] -= penalty
    groups = np.arange(number, section.prompts, count)
    return {(round_number, int(i)): found[k * section.group :][: section.group] for k, i in enumerate(groups)}


def _outcome(trajectory: Trajectory) -> Outcome:
    return Outcome(
        reward=float(np.float32(trajectory.reward["total"])),  # as it is trained
        tokens=int(trajectory.loss_mask.sum()),
        cut_off=trajectory.stop_reason in CUT_OFF,
    )


def rollout_metrics(trajectories: Sequence[Trajectory], group: int) -> dict[str, tuple[float, float]]:
    """Metrics of sampled conversations as (sum, count) pairs."""

    def over(value) -> tuple[float, float]:
        return float(sum(value(t) for t in trajectories)), float(len(trajectories))

    totals = np.array([t.reward["total"] for t in trajectories], np.float32).reshape(-1, group)
    drawing = metric_sums([drawing_metrics(t.turns, t.row.get("truth", ())) for t in trajectories])
    parts = sorted({name for t in trajectories for name in t.reward} - {"total", "drew"})
    return {
        "reward": over(lambda t: t.reward["total"]),
        **{name: over(lambda t, name=name: t.reward.get(name, 0.0)) for name in parts},
        "drew": over(lambda t: t.drawings > 0),
        "drawings": over(lambda t: t.drawings),
        "corrected": over(lambda t: t.corrected > 0),
        "errors": over(lambda t: t.errors),
        "cut_off": over(lambda t: t.stop_reason in CUT_OFF),
        "response_tokens": over(lambda t: t.loss_mask.sum()),
        "equal_groups": (float((np.ptp(totals, axis=1) == 0).sum()), float(len(totals))),
        **{f"drawing/{name}": pair for name, pair in drawing.items()},
    }


def _sum_over_hosts(pairs: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """(sum, count) pairs, each added up over all hosts."""
    total: dict[str, tuple[float, float]] = {}
    for part in gather(pairs):
        for name, (amount, count) in part.items():
            before = total.get(name, (0.0, 0.0))
            total[name] = before[0] + amount, before[1] + count
    return total
