import json

import pytest
from PIL import Image

from pyvision_rl.errors import InputError
from pyvision_rl.rollout.prompts import load_template, render_prompt
from pyvision_rl.rollout.videos import VideoInfo

IMAGES = [Image.new("RGB", (640, 480)), Image.new("RGB", (30, 20))]


@pytest.mark.parametrize(
    "name", ["image", "image_runtime", "video", "video_uniform", "brief", "direct", "question"]
)
def test_shipped_templates_hold_the_question(name):
    assert "Which {colour}?" in render_prompt(load_template(name), "Which {colour}?", IMAGES)


def test_the_tool_templates_show_the_protocol_that_is_parsed():
    from pyvision_rl.rollout.parse import parse_action

    for name in ("image", "image_runtime"):
        shown = render_prompt(load_template(name), "?", IMAGES)
        assert "image_clue_0 is 640 x 480, image_clue_1 is 30 x 20" in shown
        assert parse_action(shown).answer == "your answer"
        before_answer = shown.split("<answer>", maxsplit=1)[0]
        assert "plt.show()" in (parse_action(before_answer).code or "")


VIDEOS = [VideoInfo(1280, 720, 1438, 23.976023, 59.976), VideoInfo(112, 96, 144, 12.0, 12.0)]


def test_the_video_template_shows_the_protocol_and_what_there_is():
    from pyvision_rl.rollout.parse import parse_action

    template = load_template("video")
    shown = render_prompt(template, "When?", [], VIDEOS)
    assert (
        "There already: video_clue_0 is 1280 x 720, 1438 frames, 23.98 fps, 59.98 s; "
        "video_clue_1 is 112 x 96, 144 frames, 12 fps, 12 s." in shown
    )
    both = render_prompt(template, "When?", IMAGES[1:], VIDEOS[1:])
    assert "image_clue_0 is 30 x 20; video_clue_0 is 112 x 96, 144 frames, 12 fps, 12 s." in both
    assert parse_action(shown).answer == "your answer"
    code = parse_action(shown.split("<answer>", maxsplit=1)[0]).code or ""
    assert 'f"frame {number}"' in code
    compile(code, "shown", "exec")


def test_sizes_are_those_of_the_first_medium(tmp_path):
    path = tmp_path / "mine.txt"
    # an editor ends the last line, which is none of the prompt's
    path.write_text("{width}x{height} {video_info} {query}\n")
    template = load_template(str(path))
    assert render_prompt(template, "?", [], VIDEOS[1:]) == (
        "112x96 video_clue_0 is 112 x 96, 144 frames, 12 fps, 12 s ?"
    )
    assert render_prompt(template, "?", IMAGES[1:], VIDEOS).startswith("30x20 video_clue_0 is 1280")


def test_a_file_in_the_layout_of_the_release(tmp_path):
    path = tmp_path / "templates.json"
    path.write_text(json.dumps({"mine": "{width}x{height}: {query} in \\boxed{{}}"}))
    template = load_template(f"{path}:mine")
    assert render_prompt(template, "How many?", IMAGES) == "640x480: How many? in \\boxed{}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{query} {nonsense}", r"unknown place \{nonsense\}, allowed"),
        ("{query.__class__}", r"unknown place \{query.__class__\}"),
        ("no question", r"no place \{query\}"),
        ("{query", "write literal braces twice"),
        ("{query:>10}", r"\{query\} must stand there without a format"),
        ("{query!r}", r"\{query\} must stand there without a format"),
        ("{query} in \boxed", r"holds the character '\\x08'; in json a backslash"),
    ],
)
def test_a_template_that_cannot_work_is_refused(tmp_path, content, message):
    path = tmp_path / "mine.txt"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        load_template(str(path))


def test_unknown_names_and_keys_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"shipped template \(brief, direct, image"):
        load_template("imagee")
    path = tmp_path / "templates.json"
    path.write_text("{}")
    with pytest.raises(InputError, match="no template under the key 'v2'"):
        load_template(f"{path}:v2")
