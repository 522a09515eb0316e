"""The configuration of an RL run: every room's leaf, composed and checked against each other."""

from __future__ import annotations

from dataclasses import dataclass, field

from pyvision_rl.errors import ConfigError
from pyvision_rl.model.policy import PolicyConfig
from pyvision_rl.reward.judge_config import JudgeConfig
from pyvision_rl.reward.reward import RewardConfig
from pyvision_rl.rl.learner import LearnerConfig
from pyvision_rl.rl.select import SelectConfig
from pyvision_rl.rollout.agent import AgentConfig
from pyvision_rl.runs import CheckpointConfig, RecordConfig
from pyvision_rl.runs.track import Track


@dataclass(frozen=True)
class RLConfig:
    """Reinforcement learning of a policy on tasks (paper Sec. 3.2 and 3.3)."""

    policy: PolicyConfig
    """The checkpoint to start from."""
    data: str
    """Task file (json, jsonl or Parquet), or a YAML list of {data, weight, image_root}: a mixture.
    """
    out: str
    """Run folder."""
    image_root: str = ""
    """Folder that relative media paths start from; empty: the task file's own."""
    seed: int = 0
    """Decides tasks, sampling and shuffling."""
    num_steps: int = 700
    """Steps to train for."""
    group_size: int = 8
    """Trajectories per task."""
    checkpoint_every: int = 10
    """Steps between checkpoints; the last step always makes one."""
    max_bad_rows: int = 16
    """Tasks that are skipped where a file that was there at the start cannot be read any more; one
    more ends the run. Counted anew at each start."""
    agent: AgentConfig = field(default_factory=AgentConfig)
    """Engine, sandbox and limits of an episode."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    """What a trajectory is paid for."""
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    """A language model that judges free-text answers which the rules find wrong."""
    select: SelectConfig = field(default_factory=SelectConfig)
    """Oversampling, filters and ranking."""
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    """Optimizer and loss."""
    checkpoints: CheckpointConfig = field(
        default_factory=lambda: CheckpointConfig(best_metric="reward/accuracy")
    )
    """Which checkpoints stay."""
    records: RecordConfig = field(default_factory=RecordConfig)
    """What is written down of the trajectories."""
    track: Track = "none"
    """Service that gets the metrics too."""

    def __post_init__(self) -> None:
        if self.group_size < 2:
            raise ConfigError(f"group_size: {self.group_size}, a group needs at least 2 to compare")
        if self.num_steps < 1 or self.checkpoint_every < 1:
            raise ConfigError("num_steps and checkpoint_every must be at least 1")
        if self.max_bad_rows < 0:
            raise ConfigError(f"max_bad_rows: {self.max_bad_rows}, must not be negative")
        if self.agent.rollout.temperature == 0:
            raise ConfigError("agent.rollout.temperature: 0 explores nothing; RL needs more")
        limits = self.agent.rollout
        if (limits.top_p, limits.top_k) != (1.0, 0):
            raise ConfigError(
                "agent.rollout: top_p and top_k must be off (1 and 0) in RL: the loss is for "
                "the policy's own distribution, not for a cut one"
            )
