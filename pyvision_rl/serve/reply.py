"""Trajectories as OpenAI chat completions, whole or in chunks."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

from pyvision_rl.serve.request import ChatRequest
from pyvision_rl.types import StopReason, Trajectory

SPOKEN = (StopReason.ANSWERED, StopReason.NO_ACTION)
"""Endings that leave words for the client: an answer, or a reply in plain text."""


def content_of(trajectory: Trajectory) -> str:
    """The answer; the last text of an agent that just replied; nothing where a limit cut it."""
    if trajectory.answer is not None:
        return trajectory.answer
    is_reply = trajectory.stop is StopReason.NO_ACTION and trajectory.turns
    return trajectory.turns[-1].completion.text if is_reply else ""


def finish_of(trajectory: Trajectory) -> str:
    """OpenAI's finish reason."""
    return "stop" if trajectory.stop in SPOKEN else "length"


def completion_body(
    trajectory: Trajectory, name: str, model: str, asked: ChatRequest
) -> dict[str, object]:
    """The reply to a request that does not stream."""
    message = {"role": "assistant", "content": asked.cut(content_of(trajectory))}
    choice = {"index": 0, "message": message, "finish_reason": finish_of(trajectory)}
    return {
        "id": name,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
        "usage": usage_of(trajectory),
        "pyvision": details_of(trajectory, asked.pyvision.trajectory),
    }


def usage_of(trajectory: Trajectory) -> dict[str, int]:
    """Tokens: what the policy was given (prompt and observations) and what it wrote."""
    written = trajectory.num_completion_tokens
    total = len(trajectory.context.token_ids)
    return {
        "prompt_tokens": total - written,
        "completion_tokens": written,
        "total_tokens": total,
    }


def details_of(trajectory: Trajectory, with_trajectory: bool) -> dict[str, object]:
    """What OpenAI's interface has no place for: how the episode went, its turns if asked for."""
    details: dict[str, object] = {
        "stop": trajectory.stop.value,
        "num_tool_calls": trajectory.num_tool_calls,
        "num_visual_tokens": trajectory.num_visual_tokens,
    }
    if with_trajectory:
        details["trajectory"] = [
            {
                "completion": turn.completion.text,
                "code": turn.code,
                "observation": turn.observation.text if turn.observation else None,
                "ok": turn.observation.ok if turn.observation else None,
                "num_images": len(turn.observation.images) if turn.observation else 0,
            }
            for turn in trajectory.turns
        ]
    return details


def chunk(
    name: str,
    model: str,
    delta: Mapping[str, object],
    finish: str | None = None,
    **extra: object,
) -> bytes:
    """One server-sent event of a stream."""
    body = {
        "id": name,
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        **extra,
    }
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def error_body(message: str, kind: str) -> dict[str, object]:
    """OpenAI's form of an error."""
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}
