"""Trace files for tests, in each of the forms that the released layout allows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from pyvision_rl.model.images import PixelLimits

SMALL = PixelLimits(784, 28224)
TOOL_TURN = "<code>\n```python\nplt.imshow(image_clue_0)\nplt.show()\n```\n</code>"
PROMPT = "<image_clue_0><image></image_clue_0>\n\nHow many tags? find the red tag."
ANSWER = "I see 4.\n<answer>\n\\boxed{4}\n</answer>"


def trace_row(
    shown: str = "", said: str = ANSWER, **changes: object
) -> dict[str, list[dict[str, str]] | object]:
    """A look and an answer; the tool's output is a user message, as in the released data."""
    observation = (
        f"<tool_response>\n<interpreter>Text Result:\n{shown}\nImage Result:\n"
        "<image_clue_1><image></image_clue_1></interpreter>\n\n</tool_response>"
    )
    return {
        "conversations": [
            {"role": "user", "content": PROMPT},
            {"role": "assistant", "content": TOOL_TURN},
            {"role": "user", "content": observation},
            {"role": "assistant", "content": said},
        ],
        "images": ["picture.png", "large.png"],
        "source_dataset": "needle",
        **changes,
    }


def observation_row() -> dict[str, object]:
    """The tool's output in the observation role, roles as ShareGPT names them."""
    body = "<interpreter>Text Result:\n\nImage Result:\n<image_clue_1><image></image_clue_1>"
    return {
        "messages": [
            {"from": "human", "value": PROMPT},
            {"from": "gpt", "value": TOOL_TURN},
            {"from": "tool", "value": f"{body}</interpreter>\n"},
            {"from": "gpt", "value": ANSWER},
        ],
        "images": ["see-through.png", "tall.png"],
    }


def system_row() -> dict[str, object]:
    """A system line of its own, no image, accents, and two calls whose output is text."""
    printed = "<tool_response>\n<interpreter>\nText Result:\n{}</interpreter>\n\n</tool_response>"
    return {
        "conversations": [
            {"role": "system", "content": "You count. Zählen, bitte: é"},
            {"role": "user", "content": "How many?"},
            {"role": "assistant", "content": TOOL_TURN},
            {"role": "user", "content": printed.format("1  2\n\n3")},
            {"role": "assistant", "content": f"More.  \n{TOOL_TURN}"},
            {"role": "user", "content": printed.format("日本 <|im_end|>")},
            {"role": "assistant", "content": ANSWER},
        ],
    }


def trace_file(folder: Path, rows: Sequence[object] | None = None) -> Path:
    """A trace file with its images: RGB, too large, transparent, and tall and thin."""
    gradient = Image.linear_gradient("L")
    gradient.resize((200, 100)).convert("RGB").save(folder / "picture.png")
    gradient.resize((500, 333)).convert("RGB").save(folder / "large.png")
    clear = gradient.resize((120, 120)).convert("RGBA")
    clear.putalpha(gradient.resize((120, 120)))
    clear.save(folder / "see-through.png")
    gradient.resize((20, 150)).convert("P").save(folder / "tall.png")
    path = folder / "traces.json"
    if rows is None:
        rows = [trace_row(), observation_row(), system_row(), trace_row(shown="<|im_end|> out")]
    path.write_text(json.dumps(rows))
    return path
