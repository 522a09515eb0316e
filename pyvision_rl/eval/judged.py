"""A language model's second look at free-text answers that the rules found wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from pyvision_rl.eval.benchmarks.item import ScoredItem
from pyvision_rl.eval.store import ItemRecord
from pyvision_rl.reward.judge_config import needs_judge
from pyvision_rl.reward.reward import Grader


async def judge_misses(
    scored: Sequence[ScoredItem], records: Mapping[str, ItemRecord], judge: Grader
) -> list[ScoredItem]:
    """The items with the judge's verdict where an answer in free text was graded 0.

    Letters, numbers and formulas are the rules' alone. Raises PyVisionError where the judge gives
    no verdict.
    """

    async def judged(entry: ScoredItem) -> ScoredItem:
        samples = records[entry.item.id].samples
        grades = list(entry.grades)
        for at, (grade, sample) in enumerate(zip(grades, samples, strict=True)):
            answer = sample.answer
            if grade == 0 and answer and needs_judge(entry.item.task, answer):
                grades[at] = await judge.grade(entry.item.task, answer)
        return ScoredItem(entry.item, tuple(grades))

    return list(await asyncio.gather(*map(judged, scored)))
