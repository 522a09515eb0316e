"""Watches a run for interaction collapse (paper Sec. 1) and says once, in plain words, what fails.

Pure: the state is the metrics of the steps so far, so that a resumed run watches as before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

WINDOW = 3
"""Steps that are averaged: a single step of few groups says little."""
FALL = 0.5
"""A mean below this share of its best is a fall."""
ENTROPY_FALL = 0.25
ENTROPY_RISE = 2.5
LENGTH_RISE = 2.0
CONSTANT_SHARE = 0.8
FAILED_SHARE = 0.1
EASY, HARD = 0.8, 0.2
MIN_CALLS = 0.1
"""Fewer calls than this at their best are no use of the tool that could collapse."""

CALLS = "rollout/tool_calls"
FAILED = "rollout/failed_calls"
CONSTANT = "select/constant_share"
ENTROPY = "loss/entropy"
LENGTH = "rollout/completion_tokens"
ACCURACY = "reward/accuracy"


@dataclass(frozen=True)
class Warned:
    """What the monitor said: the step, the cause by a fixed name, and the sentence."""

    step: int
    cause: str
    text: str


@dataclass(frozen=True)
class _Trend:
    """A metric now, and the highest, lowest and first it was: all of them means over a window."""

    now: float
    high: float
    low: float
    first: float


class CollapseMonitor:
    """Feed it each step's metrics in order; `warnings` is all it has said so far."""

    def __init__(self) -> None:
        self.warnings: list[Warned] = []
        self._values: dict[str, list[float]] = {}
        self._trends: dict[str, _Trend] = {}

    def watch(self, step: int, metrics: Mapping[str, float]) -> list[Warned]:
        """Take in a step; returns what is to be said now for the first time."""
        for key in (CALLS, FAILED, CONSTANT, ENTROPY, LENGTH, ACCURACY):
            if math.isfinite(value := metrics.get(key, math.nan)):
                self._take(key, value)
        known = {warned.cause for warned in self.warnings}
        new = [
            Warned(step, cause, f"step {step}: {text}")
            for cause, text in self._troubles().items()
            if cause not in known
        ]
        self.warnings += new
        return new

    def metrics(self) -> dict[str, float]:
        """`monitor/CAUSE`: 1 where the trouble is there at present, else 0."""
        troubles = self._troubles()
        return {f"monitor/{cause}": float(cause in troubles) for cause in _CAUSES}

    def _take(self, key: str, value: float) -> None:
        values = self._values.setdefault(key, [])
        values.append(value)
        del values[:-WINDOW]
        if len(values) < WINDOW:
            return
        now = math.fsum(values) / WINDOW
        old = self._trends.get(key, _Trend(now, now, now, now))
        self._trends[key] = _Trend(now, max(old.high, now), min(old.low, now), old.first)

    def _troubles(self) -> dict[str, str]:
        found = {cause: find(self._trends) for cause, find in _CAUSES.items()}
        return {cause: text for cause, text in found.items() if text is not None}


def _tool_calls(trends: Mapping[str, _Trend]) -> str | None:
    calls = trends.get(CALLS)
    if calls is None or calls.high < MIN_CALLS or calls.now >= FALL * calls.high:
        return None
    failed = trends.get(FAILED)
    share = failed.now / calls.now if failed and calls.now else 0.0
    if share > FAILED_SHARE:
        why = (
            f"{share:.0%} of the calls fail, so that looking pays less than guessing; read the "
            "errors in the trajectories, and raise reward.tool_coef"
        )
    else:
        why = (
            "answers without a look are paid about as well; raise reward.tool_coef, set "
            "select.drop_without_look, or train on tasks that need a look"
        )
    return (
        f"tool calls fell from {calls.high:.2f} to {calls.now:.2f} a trajectory, the policy gives "
        f"up its tool. Likely cause: {why}"
    )


def _constant(trends: Mapping[str, _Trend]) -> str | None:
    share = trends.get(CONSTANT)
    if share is None or share.now <= CONSTANT_SHARE:
        return None
    accuracy = trends.get(ACCURACY)
    if accuracy and accuracy.now > EASY:
        why = "the tasks have become too easy: take harder ones, or stop here"
    elif accuracy and accuracy.now < HARD:
        why = "the tasks are too hard: train the SFT stage longer, or mix in easier ones"
    else:
        why = "the members of a group all do the same: look at the entropy, raise the temperature"
    return (
        f"in {share.now:.0%} of the groups all rewards are equal, so that they teach nothing. "
        f"Likely cause: {why}"
    )


def _entropy(trends: Mapping[str, _Trend]) -> str | None:
    entropy = trends.get(ENTROPY)
    if entropy is None:
        return None
    if entropy.now < ENTROPY_FALL * entropy.high:
        return (
            f"entropy fell from {entropy.high:.3f} to {entropy.now:.3f} a token, the policy hardly "
            "explores any more. Likely cause: a learning rate that is too high, or too few "
            "distinct tasks; raise learner.loss.clip_high to give rare tokens room"
        )
    if entropy.now > ENTROPY_RISE * entropy.low:
        return (
            f"entropy rose from {entropy.low:.3f} to {entropy.now:.3f} a token, the policy comes "
            "apart. Likely cause: a learning rate that is too high, or rewards that are noise"
        )
    return None


def _length(trends: Mapping[str, _Trend]) -> str | None:
    length = trends.get(LENGTH)
    if length is None:
        return None
    if length.now < FALL * length.high:
        return (
            f"responses shrank from {length.high:.0f} to {length.now:.0f} tokens a trajectory. "
            "Likely cause: short direct answers win their groups; compare accuracy with and "
            "without a call, and raise reward.tool_coef"
        )
    if length.now > LENGTH_RISE * length.first:
        return (
            f"responses grew from {length.first:.0f} to {length.now:.0f} tokens a trajectory. "
            "Likely cause: calls are repeated for their reward, or turns do not end; read some "
            "trajectories, lower reward.tool_coef or rollout.max_tool_calls"
        )
    return None


_CAUSES: dict[str, Callable[[Mapping[str, _Trend]], str | None]] = {
    "tool_calls": _tool_calls,
    "constant_groups": _constant,
    "entropy": _entropy,
    "response_length": _length,
}
