"""From a trajectory to its reward: rules for answers, the tool part, and a place for a judge."""

from pyvision_rl.reward.reward import Grader, RewardConfig, score, score_by, score_group
from pyvision_rl.reward.rules import grade_answer

__all__ = ["Grader", "RewardConfig", "grade_answer", "score", "score_by", "score_group"]
