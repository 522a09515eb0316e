"""What a completion asks for: an answer, a program to run, or nothing (paper Sec. 3.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
_CODE = re.compile(r"<code>\s*```(?:python|py)?[ \t]*\n((?:(?!<code>).)*?)```\s*</code>", re.DOTALL)
_FENCE = re.compile(r"```(?:python|py)[ \t]*\n(.*?)```", re.DOTALL)
_BOXED = "\\boxed{"


@dataclass(frozen=True)
class Action:
    """At most one of the two is set; neither is an answer or code: the turn does nothing."""

    answer: str | None = None
    code: str | None = None


def parse_action(text: str) -> Action:
    """Read a completion: the last non-empty answer block first, else the last code block.

    Code beside an answer is not run. A bare ```` ```python ```` fence counts where there is no
    `<code>` block.
    """
    answers = [answer for match in _ANSWER.findall(text) if (answer := unwrap_answer(match))]
    if answers:
        return Action(answer=answers[-1])
    blocks = _CODE.findall(text) or _FENCE.findall(text)
    return Action(code=blocks[-1]) if blocks else Action()


def unwrap_answer(block: str) -> str:
    r"""The content of an answer block without `\boxed{...}` and the quotes in it.

    The last box counts; braces inside it are balanced; text around a box is dropped.
    """
    start = block.rfind(_BOXED)
    if start < 0:
        return block.strip()
    start += len(_BOXED)
    depth = 1
    for end in range(start, len(block)):
        depth += (block[end] == "{") - (block[end] == "}")
        if depth == 0:
            break
    else:
        end = len(block)
    answer = block[start:end].strip()
    if len(answer) >= 2 and answer[0] == answer[-1] and answer[0] in "'\"":
        answer = answer[1:-1].strip()
    return answer
