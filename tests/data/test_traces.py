"""Traces in the released sharegpt layout, and what is refused."""

import json
from pathlib import Path

import pytest
from PIL import Image

from pyvision_rl.data.traces import Message, Span, Trace, read_traces
from pyvision_rl.errors import InputError

PROMPT = "<image_clue_0><image></image_clue_0>\n\nYou are an agent. How many?"
CALL = "<code>\n```python\nplt.show()\n```\n</code>"
SHOWN = (
    "<tool_response>\n<interpreter>Text Result:\n\nImage Result:\n"
    "<image_clue_1><image></image_clue_1></interpreter>\n\n</tool_response>"
)
ANSWER = "I see 4.\n<answer>\n\\boxed{'4'}\n</answer>"


def row(**changes: object) -> dict[str, object]:
    return {
        "conversations": [
            {"content": PROMPT, "role": "user"},
            {"content": CALL, "role": "assistant"},
            {"content": SHOWN, "role": "user"},
            {"content": ANSWER, "role": "assistant"},
        ],
        "images": ["a.png", "a.png"],
        "source_dataset": "mmpr",
    } | changes


def write(folder: Path, *rows: object) -> Path:
    Image.new("RGB", (30, 30)).save(folder / "a.png")
    path = folder / "sft.json"
    path.write_text(json.dumps(rows))
    return path


def test_released_row(tmp_path: Path) -> None:
    (trace,) = read_traces(write(tmp_path, row(loss_exclude=[[3, 6, 7], [1, 0, 6]])))
    image = tmp_path / "a.png"
    assert trace == Trace(
        messages=(
            Message(
                "user",
                ("<image_clue_0>", "</image_clue_0>\n\nYou are an agent. How many?"),
            ),
            Message("assistant", (CALL,)),
            Message(
                "user",
                (
                    "<tool_response>\n<interpreter>Text Result:\n\nImage Result:\n<image_clue_1>",
                    "</image_clue_1></interpreter>\n\n</tool_response>",
                ),
            ),
            Message("assistant", (ANSWER,)),
        ),
        images=(image, image),
        excluded=(Span(3, 6, 7), Span(1, 0, 6)),
        source="mmpr",
    )
    span = trace.excluded[0]
    assert trace.messages[span.message].text[span.start : span.end] == "4"


def test_other_names_of_the_same_things(tmp_path: Path) -> None:
    released = read_traces(write(tmp_path, row()))
    renamed = row(
        conversations=[
            {"from": "human", "value": PROMPT},
            {"from": "gpt", "value": CALL},
            {"from": "human", "value": SHOWN},
            {"from": "gpt", "value": ANSWER},
        ]
    )
    assert read_traces(write(tmp_path, renamed)) == released
    renamed["messages"] = renamed.pop("conversations")
    assert read_traces(write(tmp_path, renamed)) == released


def test_observation_role_is_kept_apart(tmp_path: Path) -> None:
    conversations = [
        {"role": "system", "content": "Be good."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": CALL},
        {"role": "observation", "content": "<interpreter>\nText Result:\n4</interpreter>\n"},
        {"role": "assistant", "content": ANSWER},
    ]
    (trace,) = read_traces(write(tmp_path, row(conversations=conversations, images=[])))
    roles = [message.role for message in trace.messages]
    assert roles == ["system", "user", "assistant", "observation", "assistant"]


VIDEO_TALK = [{"role": "user", "content": "<video>\nx"}, {"role": "assistant", "content": "y"}]
SAYS_VIDEO = {"role": "assistant", "content": "<video>"}
TALKS = {"role": "user", "content": "x"}


def test_videos_are_marked_or_in_the_runtime_only(tmp_path: Path) -> None:
    unmarked = row(videos=["a.png", "a.png"])
    marked = row(videos=["a.png"], conversations=VIDEO_TALK, images=[])
    text = row(conversations=[TALKS, SAYS_VIDEO], images=[])
    traces = read_traces(write(tmp_path, unmarked, marked, text))
    assert [len(trace.videos) for trace in traces] == [2, 1, 0]


def talk(*roles: str) -> dict[str, object]:
    return row(conversations=[{"role": role, "content": "x"} for role in roles], images=[])


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (row(images=["a.png"]), "row 0: images = '1 paths': the messages hold 2 <image>"),
        (row(images=["a.png", "b.png"]), "row 0: images = 'b.png': no file "),
        (row(conversations=[]), "row 0: conversations = []: must be a list of {role, content}"),
        (talk("user", "user", "assistant"), "'user user assistant': must go user, assistant"),
        (talk("user"), "'user': must go user, assistant"),
        (talk("assistant", "user"), "'assistant user': must go user, assistant"),
        (talk("system"), "'system': must go user, assistant"),
        (talk("user", "bot"), "conversations[1].role = 'bot': must be one of system, user"),
        (
            row(conversations=[{"role": ["user"], "content": "x"}], images=[]),
            "conversations[0].role = ['user']: must be one of system, user",
        ),
        (talk("user", "assistant", "system", "user", "assistant"), "a system message comes first"),
        (talk("system", "system", "user", "assistant"), "a system message comes first"),
        (talk("user", "assistant") | {"system": "Obey."}, "row 0: system = 'Obey.': must be the"),
        (
            row(conversations=[{"role": "user", "content": "\ud83d"}], images=[]),
            "conversations[0].content = '\\ud83d': is not Unicode text",
        ),
        (row(conversations=["x"]), "conversations[0] = 'x': must be {role, content} or"),
        (
            row(conversations=[{"role": "user", "content": ""}]),
            "conversations[0].content = '': must be text and not empty",
        ),
        (
            row(
                conversations=[
                    {"role": "user", "content": "x"},
                    {"role": "assistant", "content": "<image><image>"},
                ]
            ),
            "<image> may stand in user messages only",
        ),
        (
            row(videos=["a.png", "a.png"], conversations=VIDEO_TALK, images=[]),
            "row 0: videos = '2 paths': the messages hold 1 <video>",
        ),
        (row(videos=["no.mp4"]), "row 0: videos = 'no.mp4': no file "),
        (
            row(videos=["a.png"], conversations=[*VIDEO_TALK[:1], SAYS_VIDEO], images=[]),
            "row 0: videos = '1 paths': the messages hold 2 <video>",
        ),
        (
            row(videos=["a.png"], conversations=[TALKS, SAYS_VIDEO], images=[]),
            "<video> may stand in user messages only",
        ),
        (row(loss_exclude=[[0, 0, 1]]), "loss_exclude = [0, 0, 1]: must be [message, start, end]"),
        (row(loss_exclude=[[1, 0, len(CALL) + 1]]), "an assistant message and characters inside"),
        (row(loss_exclude=[[1, 3, 3]]), "loss_exclude = [1, 3, 3]: must be"),
        (row(loss_exclude=[[9, 0, 1]]), "loss_exclude = [9, 0, 1]: must be"),
        (row(loss_exclude=[[1, 0.0, 1]]), "loss_exclude = [1, 0.0, 1]: must be"),
        (row(loss_exclude=[[True, 0, 1]]), "loss_exclude = [True, 0, 1]: must be"),
        (row(loss_exclude=3), "loss_exclude = 3: must be a list of [message, start, end]"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, bad: object, expected: str) -> None:
    path = write(tmp_path, bad)
    with pytest.raises(InputError) as caught:
        read_traces(path)
    assert str(caught.value).startswith(f"{path}: row 0: ")
    assert expected in str(caught.value)
