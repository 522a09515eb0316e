"""From a trajectory to its reward: rules for answers, a judge where none decides, the tool part."""

from pyvision_rl.reward.declared import grade_task, register_rule
from pyvision_rl.reward.reward import (
    Grader,
    RewardConfig,
    RuleGrader,
    score,
    score_by,
    score_group,
    score_group_by,
)
from pyvision_rl.reward.rules import grade_answer

__all__ = [
    "Grader",
    "RewardConfig",
    "RuleGrader",
    "grade_answer",
    "grade_task",
    "register_rule",
    "score",
    "score_by",
    "score_group",
    "score_group_by",
]
