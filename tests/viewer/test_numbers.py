"""Numbers as the pages draw them: axes, gaps, what is not finite, what was not logged."""

import math
from dataclasses import replace

import pytest

from pyvision_rl.runs import GroupRecord, RunFolder
from pyvision_rl.types import Group, Reward
from pyvision_rl.viewer.app import view_routes
from pyvision_rl.viewer.library import Library
from tests.runs.examples import records
from tests.viewer.conftest import serving

LOGGED = {
    # From 123.4 to 124.2 million with a margin: full ones of 0.2 are 123.6 and on.
    "learner/tokens": [123_456_789, 123_800_000, 124_000_000, 124_156_789],
    "learner/lr": [1e-6] * 4,
    "loss/entropy": [0.5, 0.4, math.nan, 0.3],
    "reward/accuracy": [0.5, 0.25, 0.5, math.nan],
    "time/step_s": [0.9990, 0.9992, 0.9994, 0.9995],
    "select/dropped/constant": [3.0, None, 2.0, 4.0],
    "select/dropped/late": [None, None, 1.0, None],
}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "lr=1e-6,kl=0"
    with RunFolder.create(path, "seed: 0\n") as run:
        for step in range(4):
            values = {key: series[step] for key, series in LOGGED.items()}
            run.log(step, {key: value for key, value in values.items() if value is not None})
        run.write_groups(0, "train", records(0))
    return path


def in_chart(title: str, selector: str) -> str:
    charts = "[...document.querySelectorAll('.chart')]"
    chart = f"{charts}.find((node) => node.querySelector('span').textContent === '{title}')"
    return f"[...{chart}.querySelectorAll('{selector}')]"


def test_curves_are_what_was_logged(tab, folder):
    with serving(view_routes(Library([folder]))) as url:
        tab.goto(url)

        def texts(title: str, selector: str = "text[text-anchor=end]") -> list[str]:
            return tab.js(f"{in_chart(title, selector)}.map((node) => node.textContent)")

        def paths(title: str) -> list[str]:
            found = f"{in_chart(title, '.curve')}.map((node) => node.getAttribute('d'))"
            return tab.js(found)

        assert texts("learner/tokens") == ["123.6M", "123.8M", "124.0M"]
        assert texts("learner/lr") == ["5e-7", "1.0e-6", "1.5e-6"]
        assert texts("time/step_s") == ["0.9990", "0.9992", "0.9994"]
        # The line stops where a value is not finite, and says so.
        assert [path.count("M") for path in paths("Entropy per token (nats)")] == [2]
        assert [path.count("M") for path in paths("learner/tokens")] == [1]
        assert texts("Accuracy of rollouts", "figcaption b") == ["NaN"]
        # In a step without a selection nothing was dropped for no reason; a reason that did not
        # occur in a selection was 0.
        dropped = paths("Dropped, by reason")
        assert [path.count("L") + path.count("M") for path in dropped] == [3, 3]
        tab.js("document.querySelector('input[type=range]').value = 0.5")
        tab.js("void document.querySelector('input[type=range]').dispatchEvent(new Event('input'))")
        tab.wait("document.querySelector('.curve.faint')")
        assert [path.count("M") for path in paths("Entropy per token (nats)")] == [2, 2]
        assert "NaN" not in "".join(paths("Entropy per token (nats)"))


def test_a_choice_of_runs_is_in_the_address_whatever_their_names(tab, folder):
    with RunFolder.create(folder.parent / "other", "seed: 0\n") as run:
        run.log(0, {"reward/mean": 0.5})
    with serving(view_routes(Library([folder.parent]))) as url:
        tab.goto(url)
        tab.click("input[aria-label='draw other']")
        tab.wait("location.hash.includes('runs=')")
        # Who ticks by key stays where they are.
        assert tab.js("document.activeElement.getAttribute('aria-label')") == "draw other"
        tab.send("Page.reload")
        tab.wait_for("main:not([aria-busy]) .chart")
        boxes = "[...document.querySelectorAll('.runs input')].map((box) => box.checked)"
        assert tab.js(boxes) == [True, True]
        assert tab.count("path.curve") > 0


def test_log_probs_that_no_server_told(tab, tmp_path):
    """A chat server tells none: they are NaN in the records."""
    (record, _) = records(0)
    trajectory = record.group.trajectories[1]
    first = trajectory.turns[0]
    untold = replace(first.completion, logprobs=(math.nan,) * len(first.completion.logprobs))
    turns = (replace(first, completion=untold), *trajectory.turns[1:])
    group = Group(record.group.task, (replace(trajectory, turns=turns),), (Reward(1.0, 0.0),))
    with RunFolder.create(tmp_path / "chat", "seed: 0\n") as run:
        run.write_groups(0, "eval", [GroupRecord(group)])
    with serving(view_routes(Library([tmp_path]))) as url:
        tab.goto(f"{url}/#/t/chat/eval/0/0/0")
        tab.press("t")
        tab.wait_for(".tokens")
        titles = tab.js("[...document.querySelectorAll('.sampled')].map((node) => node.title)")
    assert titles == [
        *(f"id {token_id}, log-prob unknown, loss mask 1" for token_id in (5, 6, 151_000)),
        "id 1, log-prob -2.500, probability 8.2%, loss mask 1",
    ]


def test_a_mark_that_is_tapped_says_its_sentence_and_leads_nowhere(tab, folder):
    with RunFolder.create(folder, "seed: 0\n", resume=True) as run:
        text = "step 2: Entropy fell"
        run.write_warnings([{"step": 2, "cause": "entropy", "text": text}])
    with serving(view_routes(Library([folder]))) as url:
        tab.goto(url)
        tab.click(".mark .reach")
        assert tab.text(".tip:not([hidden]) p") == "Entropy fell"
        assert tab.js("location.hash") == ""
