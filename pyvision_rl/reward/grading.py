"""Opening what grades a stage's answers: the rules, with a judge beside them where one is set."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from pyvision_rl.errors import ConfigError
from pyvision_rl.reward.judge_config import JudgeConfig
from pyvision_rl.reward.reward import Grader, RewardConfig, RuleGrader


class StageGrader(Grader, Protocol):
    """A grader that tells what it has cost."""

    def take_metrics(self) -> dict[str, float]:
        """Numbers of what was graded since the last call, `judge/...`; none for rules."""
        ...


@asynccontextmanager
async def open_grader(
    reward: RewardConfig, judge: JudgeConfig, folder: Path
) -> AsyncIterator[StageGrader]:
    """The grader of a stage whose run lies in `folder`; the judge's verdicts are kept there unless
    it has a cache of its own. Raises ConfigError where the judge cannot be used.
    """
    if not judge.model:
        yield RuleGrader(reward.rule)
        return
    try:
        from pyvision_rl.reward.judge import Judge
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"a judge needs {error.name}: pip install 'pyvision-rl[server]'"
        ) from error
    async with Judge(replace(judge, cache=judge.cache or str(folder)), reward.rule) as grader:
        yield grader
