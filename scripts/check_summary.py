"""Checks that a summary.json is whole: every stage, mode and kind with figures that can be."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

STAGES = ("base", "sft", "rl")
MODES = ("greedy", "sampled")
KINDS = ("easy", "one_look", "two_looks")
CLIP_KINDS = ("on_sheet", "between")
SECONDS = ("sft", "rl", "eval", "total")
SHARES = ("accuracy", "zero_call_share")
ROUNDING = 1e-9
COUNTS = ("tool_calls_mean", "visual_tokens_mean", "num_tasks")


def problems(summary: Mapping[str, object]) -> Iterator[str]:
    """One line for each thing that is missing or cannot be."""
    is_video = "uniform" in summary
    for stage in STAGES:
        for mode in MODES:
            place = f"stages.{stage}.{mode}"
            yield from _figures(summary, place)
            for kind in CLIP_KINDS if is_video else KINDS:
                yield from _figures(summary, f"{place}.by_kind.{kind}")
    if is_video:
        yield from _figures(summary, "uniform")
        yield from _number(summary, "uniform.ceiling", 1.0)
    for place in ("chance", "oracle"):
        yield from _number(summary, place, 1.0)
    for part in SECONDS:
        yield from _number(summary, f"seconds.{part}", float("inf"))
    yield from _number(summary, "seed", float("inf"))


def _figures(summary: Mapping[str, object], place: str) -> Iterator[str]:
    for name in SHARES:
        yield from _number(summary, f"{place}.{name}", 1.0)
    for name in COUNTS:
        yield from _number(summary, f"{place}.{name}", float("inf"))
    interval, accuracy = _at(summary, f"{place}.accuracy_ci95"), _at(summary, f"{place}.accuracy")
    match interval, accuracy:
        case [float() | int() as low, float() | int() as high], float() | int():
            if not low - ROUNDING <= accuracy <= high + ROUNDING:
                yield f"{place}: accuracy {accuracy} is outside its interval {interval}"
        case _:
            yield f"{place}.accuracy_ci95: {interval!r} is not [low, high]"


def _number(summary: Mapping[str, object], place: str, highest: float) -> Iterator[str]:
    value = _at(summary, place)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= highest:
        yield f"{place}: {value!r} is not a number from 0 to {highest}"


def _at(summary: Mapping[str, object], place: str) -> object:
    node: object = summary
    for key in place.split("."):
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def main() -> int:
    """Exit status 0 where the summary named on the command line is whole."""
    path = Path(sys.argv[1])
    found = list(problems(json.loads(path.read_text())))
    for line in found:
        print(f"{path}: {line}")
    if not found:
        print(f"{path}: whole")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
