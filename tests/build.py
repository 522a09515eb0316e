"""Small trajectories and groups for tests, built by hand."""

from __future__ import annotations

from pyvision_rl.types import (
    Completion,
    Group,
    Observation,
    Reward,
    StopReason,
    Task,
    Trajectory,
    Turn,
)

TASK = Task(id="t", question="Which digit?", answer="7")


def completion(*token_ids: int, text: str = "", logprob: float = -0.5) -> Completion:
    return Completion(token_ids, (logprob,) * len(token_ids), text, "stop")


def observation(*token_ids: int, images: tuple = (), ok: bool = True) -> Observation:
    return Observation(token_ids, "", images, len(images), ok)


def trajectory(
    *observations: Observation,
    stop: StopReason = StopReason.ANSWERED,
    answer: str | None = "7",
    task: Task = TASK,
) -> Trajectory:
    """Prompt (1, 2), then completion (10), observation, ... and a last completion (11, 12)."""
    turns = [Turn(completion(10), seen, "code") for seen in observations]
    turns.append(Turn(completion(11, 12), None))
    return Trajectory(task, observation(1, 2), tuple(turns), stop, answer)


def group(*rewards: tuple[float, float], stops: dict[int, StopReason] | None = None) -> Group:
    """A group with the given (accuracy, tool) rewards; `stops` names those not answered."""
    stops = stops or {}
    members = tuple(
        trajectory(stop=stops.get(index, StopReason.ANSWERED)) for index in range(len(rewards))
    )
    return Group(TASK, members, tuple(Reward(*reward) for reward in rewards))
