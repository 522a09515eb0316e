"""The check of a summary finds what is missing, and only that."""

from __future__ import annotations

import copy
import math

import pytest

from scripts.check_summary import problems


def figures() -> dict[str, object]:
    return {
        "accuracy": 0.5,
        "accuracy_ci95": [0.4, 0.6],
        "tool_calls_mean": 1.5,
        "zero_call_share": 0.0,
        "visual_tokens_mean": 40.0,
        "num_tasks": 30,
    }


def whole(kinds: tuple[str, ...] = ("easy", "one_look", "two_looks")) -> dict[str, object]:
    mode = {**figures(), "by_kind": {kind: figures() for kind in kinds}}
    stages = {
        stage: {name: copy.deepcopy(mode) for name in ("greedy", "sampled")}
        for stage in ("base", "sft", "rl")
    }
    seconds = {"sft": 1.0, "rl": 2.0, "eval": 3.0, "total": 6.5}
    return {"stages": stages, "chance": 0.1, "oracle": 1.0, "seconds": seconds, "seed": 0}


def changed(place: str, value: object) -> dict[str, object]:
    """A whole summary but for one value; None takes it away."""
    summary: dict = whole()
    *parents, last = place.split(".")
    node = summary
    for key in parents:
        node = node[key]
    node[last] = value
    if value is None:
        del node[last]
    return summary


def test_a_whole_summary_has_no_problem() -> None:
    assert list(problems(whole())) == []


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("stages.sft.greedy.accuracy", None),
        ("stages.rl.sampled.by_kind.two_looks.zero_call_share", None),
        ("stages.base.greedy.tool_calls_mean", "1.5"),
        ("stages.rl.greedy.accuracy", 0.7),
        ("stages.rl.greedy.accuracy_ci95", [0.4]),
        ("stages.rl.greedy.visual_tokens_mean", math.nan),
        ("stages.rl.greedy.num_tasks", -1),
        ("oracle", 1.1),
        ("chance", None),
        ("seconds.total", None),
        ("seed", True),
    ],
)
def test_a_flaw_is_named(place: str, value: object) -> None:
    found = list(problems(changed(place, value)))
    assert found
    assert all(place.rsplit(".", 1)[0] in line for line in found)


def test_a_summary_on_videos_holds_the_uniform_context() -> None:
    summary = whole(("on_sheet", "between"))
    summary["uniform"] = {**figures(), "ceiling": 0.7}
    assert list(problems(summary)) == []
    summary["uniform"] = figures()
    assert [line.split(":")[0] for line in problems(summary)] == ["uniform.ceiling"]


def test_an_empty_summary() -> None:
    assert len(list(problems({}))) == 3 * 2 * 4 * 6 + 2 + 4 + 1
