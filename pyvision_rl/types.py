"""The nouns of the project: what flows from a task file to a gradient (standard library and PIL).

No field is ever filled in later: a reward lives in the `Group`, not in the `Trajectory` it judges.

Flow, each arrow one function::

    Task -run_group-> Trajectories -score-> Group -select-> Selection -make_samples-> Samples
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from PIL.Image import Image


@dataclass(frozen=True)
class Task:
    """One question about images or videos, as read from a data file.

    `ability` is the data set's own grouping (numbers are reported per ability). `rule` names the
    rule that grades answers; "auto" leaves the choice to the reward.
    """

    id: str
    question: str
    answer: str
    images: tuple[Path, ...] = ()
    videos: tuple[Path, ...] = ()
    source: str = ""
    ability: str = ""
    rule: str = "auto"


@dataclass(frozen=True)
class Completion:
    """What the policy wrote in one turn, exactly as sampled: never re-tokenised.

    `token_ids` and `logprobs` have the same length T. `finish` is "length" where a token limit cut
    the completion; a "stop" completion ends with the end-of-turn token or a stop string.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish: Literal["stop", "length"]


@dataclass(frozen=True)
class Observation:
    """What the environment answered (or the prompt it opened with), as tokens and as seen.

    `images` are as the policy sees them: already resized to whole visual tokens.
    `ok`: the cell ran without error (True for a prompt).
    """

    token_ids: tuple[int, ...]
    text: str
    images: tuple[Image, ...]
    num_visual_tokens: int
    ok: bool = True


@dataclass(frozen=True)
class Turn:
    """A completion and what it led to. `observation` is None where the episode ended here.

    `code` is the program that was run, None where the turn called no tool.
    """

    completion: Completion
    observation: Observation | None
    code: str | None = None


@dataclass(frozen=True)
class Context:
    """All that the policy has seen and written so far: what an engine continues.

    `id` names the trajectory, so that an engine may keep what it computed for earlier turns.
    """

    id: str
    prompt: Observation
    turns: tuple[Turn, ...] = ()

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Prompt, completion, observation, completion ... in order."""
        ids = list(self.prompt.token_ids)
        for turn in self.turns:
            ids += turn.completion.token_ids
            if turn.observation:
                ids += turn.observation.token_ids
        return tuple(ids)

    @property
    def images(self) -> tuple[Image, ...]:
        """Every image in the context, in order: given, then shown."""
        shown = (image for t in self.turns if t.observation for image in t.observation.images)
        return (*self.prompt.images, *shown)


class StopReason(StrEnum):
    """Why an episode ended."""

    ANSWERED = "answered"
    NO_ACTION = "no_action"
    MAX_TURNS = "max_turns"
    MAX_TOKENS = "max_tokens"
    MAX_IMAGES = "max_images"
    CODE_ERROR = "code_error"
    SANDBOX_LOST = "sandbox_lost"


@dataclass(frozen=True)
class Trajectory:
    """One episode: a prompt and turns, the append-only list of tokens a policy is trained on."""

    task: Task
    prompt: Observation
    turns: tuple[Turn, ...]
    stop: StopReason
    answer: str | None
    seed: int = 0

    @property
    def num_tool_calls(self) -> int:
        """Calls whose result came back, failed ones included."""
        return sum(turn.observation is not None for turn in self.turns)

    @property
    def num_ok_tool_calls(self) -> int:
        """Calls that came back without an error: those the tool reward pays for."""
        return sum(turn.observation is not None and turn.observation.ok for turn in self.turns)

    @property
    def num_visual_tokens(self) -> int:
        """Visual tokens in the context, given and shown."""
        return self.num_visual_tokens_given + self.num_visual_tokens_shown

    @property
    def num_visual_tokens_given(self) -> int:
        """Visual tokens that the context started with: images, and frames if any."""
        return self.prompt.num_visual_tokens

    @property
    def num_visual_tokens_shown(self) -> int:
        """Visual tokens of what programs showed."""
        return sum(t.observation.num_visual_tokens for t in self.turns if t.observation)

    @property
    def num_completion_tokens(self) -> int:
        """Tokens that the policy sampled."""
        return sum(len(turn.completion.token_ids) for turn in self.turns)

    @property
    def context(self) -> Context:
        """The trajectory as one growing conversation: its token ids and images in order."""
        return Context(self.task.id, self.prompt, self.turns)

    @property
    def looked(self) -> bool:
        """Whether code of the policy ever showed it an image."""
        return any(turn.observation and turn.observation.images for turn in self.turns)


@dataclass(frozen=True)
class Reward:
    """R = accuracy + tool, the tool part paid to right answers only (paper Sec. 3.2)."""

    accuracy: float
    tool: float

    @property
    def total(self) -> float:
        """The number that the advantage is made of."""
        return self.accuracy + self.tool

    @property
    def thousandths(self) -> int:
        """The total in integer thousandths: equal rewards compare equal, whatever the floats."""
        return round(self.total * 1000)


@dataclass(frozen=True)
class Group:
    """G trajectories of one task and their rewards, in the same order."""

    task: Task
    trajectories: tuple[Trajectory, ...]
    rewards: tuple[Reward, ...]

    @property
    def counted(self) -> tuple[int, ...]:
        """Indices of the trajectories that are the policy's own doing (no lost sandbox)."""
        return tuple(
            index
            for index, trajectory in enumerate(self.trajectories)
            if trajectory.stop is not StopReason.SANDBOX_LOST
        )

    @property
    def reward_mean(self) -> float:
        """Mean reward of the counted trajectories; 0 where there are none."""
        totals = [self.rewards[index].total for index in self.counted]
        return math.fsum(totals) / len(totals) if totals else 0.0

    @property
    def reward_std(self) -> float:
        """Population standard deviation of the counted rewards; exactly 0 where all are equal."""
        totals = [self.rewards[index].total for index in self.counted]
        if len({self.rewards[index].thousandths for index in self.counted}) < 2:
            return 0.0
        mean = math.fsum(totals) / len(totals)
        return math.sqrt(math.fsum((total - mean) ** 2 for total in totals) / len(totals))


@dataclass(frozen=True)
class KeptGroup:
    """A group chosen for training and the indices of its trajectories that enter the loss."""

    group: Group
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Selection:
    """The groups drawn for one step, those kept (best first), and why the others were not.

    `surplus`: groups that would do but ranked below the kept ones, best first.
    """

    drawn: tuple[Group, ...]
    kept: tuple[KeptGroup, ...]
    dropped: Counter[str]
    surplus: tuple[Group, ...] = ()
