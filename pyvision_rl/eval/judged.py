"""A language model's second look at free-text answers that the rules found wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyvision_rl.errors import ConfigError
from pyvision_rl.eval.benchmarks.item import ScoredItem
from pyvision_rl.eval.store import ItemRecord

VERDICTS = "judge.sqlite"


@dataclass(frozen=True)
class JudgeChoice:
    """Which model judges; empty: none does, and free text must match the gold answer."""

    model: str = ""
    """Name of the model at the server."""
    url: str = "http://127.0.0.1:8000/v1"
    """The server's address up to and with /v1."""


async def judge_misses(
    scored: Sequence[ScoredItem],
    records: Mapping[str, ItemRecord],
    choice: JudgeChoice,
    folder: Path,
) -> list[ScoredItem]:
    """The items with the judge's verdict where an answer in free text was graded 0.

    Letters, numbers and formulas are the rules' alone. Verdicts are kept in the folder, so that
    scoring again asks nothing twice. Raises PyVisionError where the judge gives no verdict.
    """
    try:
        from pyvision_rl.reward.judge import Judge, JudgeConfig, needs_judge
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"a judge needs {error.name}: pip install 'pyvision-rl[server]'"
        ) from error
    config = JudgeConfig(choice.model, base_url=choice.url, cache=str(folder / VERDICTS))

    async with Judge(config) as judge:

        async def judged(entry: ScoredItem) -> ScoredItem:
            samples = records[entry.item.id].samples
            grades = list(entry.grades)
            for at, (grade, sample) in enumerate(zip(grades, samples, strict=True)):
                answer = sample.answer
                if grade == 0 and answer and needs_judge(entry.item.task, answer):
                    grades[at] = await judge.grade(entry.item.task, answer)
            return ScoredItem(entry.item, tuple(grades))

        return await asyncio.gather(*map(judged, scored))
