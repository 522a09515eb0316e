"""A turn as a person reads it: thought, program, output, figures, answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pyvision_rl.rollout.parse import unwrap_answer
from pyvision_rl.runs.schema import StoredObservation, StoredTurn
from pyvision_rl.types import Turn
from pyvision_rl.viewer.highlight import Piece, highlight

_OPENS = re.compile(r"(<code>\s*)?```(python|py)?[ \t]*\n\Z")
_CLOSES = re.compile(r"\A\s*```\s*(</code>)?")
_ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
_RESULT = re.compile(r"\A<tool_response>\n<interpreter>\n?Text Result:\n")
_RESULT_END = re.compile(r"</interpreter>\s*</tool_response>\s*\Z")
_NAME = re.compile(r"<image_clue_(\d{1,6})>")
_LONGEST_END = 200
_IMAGES = "\nImage Result:\n"
_TRACEBACK = "Traceback (most recent call last)"


@dataclass(frozen=True)
class Segment:
    """A part of a completion; `pieces` are plain text except in code."""

    kind: Literal["text", "code", "answer"]
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Result:
    """What a program gave back. The figures are `image_clue_{first_figure}` and on, by sha1."""

    output: str
    traceback: str
    ok: bool
    figures: tuple[str, ...]
    first_figure: int
    num_tokens: int
    num_visual_tokens: int


@dataclass(frozen=True)
class TurnView:
    """A turn; `result` is None where nothing was run or its observation was not taken."""

    segments: tuple[Segment, ...]
    has_code: bool
    finish: str
    num_tokens: int
    result: Result | None


def view_turns(turns: Sequence[StoredTurn], num_given: int) -> tuple[TurnView, ...]:
    """The turns of a trajectory with `num_given` images of its own."""
    views: list[TurnView] = []
    first = num_given
    for turn in turns:
        views.append(view := view_turn(turn, first))
        if view.result:
            first = view.result.first_figure + len(view.result.figures)
    return tuple(views)


def view_turn(turn: StoredTurn, first_figure: int) -> TurnView:
    """One turn; `first_figure` images were given or shown before it, if its text does not say."""
    return TurnView(
        segments=tuple(_segments(turn.text, turn.code)),
        has_code=turn.code is not None,
        finish=turn.finish,
        num_tokens=len(turn.token_ids),
        result=_result(turn.observation, first_figure) if turn.observation else None,
    )


def store_turn(turn: Turn, figures: tuple[str, ...]) -> StoredTurn:
    """A turn as a record would hold it, its figures under the given names."""
    seen, completion = turn.observation, turn.completion
    observation = None
    if seen:
        observation = StoredObservation(
            seen.text, seen.token_ids, figures, seen.num_visual_tokens, seen.ok
        )
    return StoredTurn(
        text=completion.text,
        token_ids=completion.token_ids,
        logprobs=completion.logprobs,
        finish=completion.finish,
        code=turn.code,
        observation=observation,
    )


def part_thought(text: str, code: str) -> str:
    """What a completion says beside its program (empty: it has none)."""
    return "\n".join(part for part in _around(text, code) if part)


def part_output(text: str, *, has_figures: bool) -> str:
    """What a program printed, of the observation that shows it; figures' names left out."""
    output = _RESULT.sub("", text)
    if has_figures and (cut := output.rfind(_IMAGES)) >= 0:
        output = output[:cut]
    return _without_end(output, _RESULT_END)


def _around(text: str, code: str) -> tuple[str, str]:
    """What stands before and after a program; its fence and tags go with it."""
    start = text.rfind(code) if code else -1
    if start < 0:
        return "", text
    return _without_end(text[:start], _OPENS), _CLOSES.sub("", text[start + len(code) :])


def _without_end(text: str, ending: re.Pattern[str]) -> str:
    """The text without its ending, which is looked for at the end only: texts may be long."""
    found = ending.search(text, max(0, len(text) - _LONGEST_END))
    return text[: found.start()] if found else text


def _segments(text: str, code: str | None) -> Iterator[Segment]:
    """The program is found by its text."""
    before, after = _around(text, code or "")
    if code and len(before) + len(after) < len(text):
        yield from _prose(before)
        yield Segment("code", highlight(code.rstrip("\n")))
    yield from _prose(after)


def _prose(text: str) -> Iterator[Segment]:
    """Text and answer blocks in turn, empty ones left out."""
    end = 0
    for match in _ANSWER.finditer(text):
        yield from _plain(text[end : match.start()])
        yield Segment("answer", (("", unwrap_answer(match[1])),))
        end = match.end()
    yield from _plain(text[end:])


def _plain(text: str) -> Iterator[Segment]:
    if text.strip():
        yield Segment("text", (("", text.strip("\n")),))


def _result(observation: StoredObservation, first_figure: int) -> Result:
    output = part_output(observation.text, has_figures=bool(observation.images))
    traceback = ""
    if not observation.ok and (start := output.find(_TRACEBACK)) >= 0:
        output, traceback = output[:start], output[start:]
    return Result(
        output=output.strip("\n"),
        traceback=traceback.strip("\n"),
        ok=observation.ok,
        figures=observation.images,
        first_figure=_first_name(observation, first_figure),
        num_tokens=len(observation.token_ids),
        num_visual_tokens=observation.num_visual_tokens,
    )


def _first_name(observation: StoredObservation, default: int) -> int:
    """The number of the first figure, from the tag that the policy saw."""
    end = observation.text.rfind(_IMAGES)
    name = _NAME.search(observation.text, end) if observation.images and end >= 0 else None
    return int(name[1]) if name else default
