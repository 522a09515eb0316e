"""What a benchmark's result counts, and what is kept of it for comparisons."""

import pytest

from pyvision_rl.errors import InputError
from pyvision_rl.eval.benchmarks.item import BenchmarkItem, ScoredItem
from pyvision_rl.eval.benchmarks.vstar import VSTAR
from pyvision_rl.eval.result import ItemScore, grade_items, make_result, read_scores, write_scores
from pyvision_rl.eval.store import ItemRecord, SampleRecord
from pyvision_rl.types import StopReason, Task


def item(name: str, cluster: str = "") -> BenchmarkItem:
    options = {"A": "red", "B": "blue"}
    labels = {"category": "direct_attributes"}
    return BenchmarkItem(Task(name, "Which?", "A"), options, labels=labels, cluster=cluster)


def sample(
    answer: str | None, calls: tuple[int, int] = (0, 0), stop: StopReason = StopReason.ANSWERED
) -> SampleRecord:
    """Of 10 visual tokens, 4 of them shown; 20 written, 100 read; `calls` made and ok."""
    num, num_ok = calls
    return SampleRecord(answer, answer or "", stop, num + 1, num, num_ok, 10, 20, 100, 4)


ITEMS = [item("a"), item("b"), item("c")]
LOST = sample(None, (3, 3), stop=StopReason.SANDBOX_LOST)
RECORDS = {
    "a": ItemRecord("a", 0, 2.0, (sample("A", (2, 1)), sample("B"))),
    "b": ItemRecord("b", 1, 4.0, (sample("A", (1, 1)), LOST)),
}


def test_lost_samples_are_counted_as_lost_and_cost_and_nothing_else():
    scored = grade_items(VSTAR, "official", ITEMS, RECORDS)
    assert [(entry.item.id, entry.grades) for entry in scored] == [
        ("a", (1.0, 0.0)),
        ("b", (1.0, None)),
    ]
    result = make_result(VSTAR, "official", scored, RECORDS)
    assert (result.num_items, result.num_samples, result.num_lost) == (2, 2, 1)
    assert result.main.value == 0.75
    assert result.stops == {"answered": 3, "sandbox_lost": 1}
    # means over the three samples that count, but for seconds: over two items
    assert result.behaviour == {
        "tool_calls_mean": 1.0,
        "failed_calls_mean": pytest.approx(1 / 3),
        "zero_call_share": pytest.approx(1 / 3),
        "turns_mean": 2.0,
        "visual_tokens_mean": 10.0,
        "visual_tokens_shown_mean": 4.0,
        "completion_tokens_mean": 20.0,
        "seconds_mean": 3.0,
    }
    assert result.cost == {"input_tokens": 400.0, "output_tokens": 80.0, "item_seconds": 6.0}


def test_scores_come_back_with_what_goes_together(tmp_path):
    scored = [ScoredItem(item("a", "v"), (1.0, None)), ScoredItem(item("b"), (0.5,))]
    write_scores(tmp_path, scored)
    assert read_scores(tmp_path) == [ItemScore("a", "v", (1.0, None)), ItemScore("b", "b", (0.5,))]
    assert [score.mean for score in read_scores(tmp_path)] == [1.0, 0.5]
    assert ItemScore("c", "c", (None,)).mean is None


def test_no_scores(tmp_path):
    with pytest.raises(InputError, match=r"no finished evaluation there \(no scores\.jsonl\)"):
        read_scores(tmp_path)
    (tmp_path / "scores.jsonl").write_text('{"id": 3}\n')
    with pytest.raises(InputError, match=r"scores\.jsonl: not the scores of an evaluation"):
        read_scores(tmp_path)
