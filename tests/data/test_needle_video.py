from itertools import pairwise
from unittest.mock import Mock

import numpy as np
import pytest

from pyvision_rl.data.needle_draw import COLOURS
from pyvision_rl.data.needle_video import (
    NUM_FRAMES,
    Event,
    clip_turns,
    make_clip,
    needed_looks,
    oracle_clip_turns,
)
from pyvision_rl.data.needle_video_files import write_clip
from pyvision_rl.sandbox.video import VideoReader

# Frames 2, 6, 10 ... are on the first sheet, 0, 4, 8 ... on the second.
ON_SHEET = Event("red", "7", 81, 84)  # 82 = 2 + 4 * 20: row 3, column 2
BETWEEN = Event("cyan", "4", 43, 45)  # 44 = 4 * 11: row 1, column 5


@pytest.fixture(scope="module")
def clips():
    return [make_clip(seed) for seed in range(24)]


def test_same_seed_same_clip(clips):
    again = make_clip(3)
    assert again.frames.tobytes() == clips[3].frames.tobytes()
    assert (again.events, again.asked) == (clips[3].events, clips[3].asked)
    assert clips[3].frames.tobytes() != clips[4].frames.tobytes()


def test_tags_show_in_their_frames_only(clips):
    for clip in clips[:4]:
        for event in clip.events:
            painted = (clip.frames == COLOURS[event.colour]).all(-1).sum((1, 2))
            # A disc of radius 51 less the 64 x 64 plate: 8171 - 4096 = 4075 pixels.
            assert (painted[event.first : event.end] > 4000).all()
            assert painted.sum() == painted[event.first : event.end].sum()


def test_a_clip_asks_for_one_of_a_few_tags_that_show_one_at_a_time(clips):
    for clip in clips:
        spans = sorted((event.first, event.end) for event in clip.events)
        assert all(2 <= end - first <= 4 for first, end in spans)
        assert all(end <= first for (_, end), (first, _) in pairwise(spans))
        assert 0 <= spans[0][0] < spans[-1][1] <= NUM_FRAMES == len(clip.frames)
        assert len({event.colour for event in clip.events}) == len(clip.events)
        assert clip.asked in clip.events
        assert clip.question == f"Which digit is on the {clip.asked.colour} tag?"


def test_two_thirds_of_the_tags_are_on_the_first_sheet(clips):
    kinds = [event.kind for clip in clips for event in clip.events]
    # Tags of 2, 3 and 4 frames (0.5, 0.3, 0.2) meet every fourth frame in 2/4, 3/4 and 4/4 of the
    # cases: 0.675. About 100 tags: a standard deviation of 0.047.
    assert kinds.count("on_sheet") / len(kinds) == pytest.approx(0.675, abs=0.19)
    assert {"on_sheet", "between"} == set(kinds)


@pytest.mark.parametrize("first", range(12))
@pytest.mark.parametrize("length", [2, 3, 4])
def test_the_two_sheets_show_every_tag(first, length):
    event = Event("red", "7", first, first + length)
    shown = {offset: event.frame_on(offset) for offset in (2, 0)}
    for offset, frame in shown.items():
        frames = [f for f in range(first, first + length) if f % 4 == offset]
        assert frame == (frames[0] if frames else None)
    assert set(shown.values()) != {None}
    assert event.kind == ("between" if shown[2] is None else "on_sheet")


def test_text_of_a_tag_on_the_first_sheet():
    sheet, frame, answer = oracle_clip_turns(ON_SHEET)
    assert sheet == (
        "red\n<code>\n```python\ns = 2\n"
        "plt.imshow(np.hstack(np.hstack(video_clue_0[s::4].reshape(6, 6, 112, 112, 3))))\n"
        "plt.show()\n```\n</code>"
    )
    assert frame == (
        "red 3 2\n<code>\n```python\nx, y = 2, 3\n"
        "plt.imshow(video_clue_0[s + 4*(x + 6*y)][14:98, 14:98])\nplt.show()\n```\n</code>"
    )
    assert answer == "I see 7.\n<answer>\n\\boxed{7}\n</answer>"


def test_text_of_a_tag_between_the_frames_of_the_first_sheet():
    first, second, frame, answer = oracle_clip_turns(BETWEEN)
    assert first.startswith("cyan\n<code>\n```python\ns = 2\n")
    assert second.startswith("cyan none\n<code>\n```python\ns = 0\n")
    assert frame.startswith("cyan 1 5\n<code>\n```python\nx, y = 5, 1\n")
    assert answer.startswith("I see 4.")


@pytest.mark.parametrize(
    ("event", "num_looks", "lead"),
    [
        (ON_SHEET, 0, "red\nclear 7."),
        (ON_SHEET, 1, "red 3 2\nclear 7."),
        (BETWEEN, 0, "cyan\nclear 4."),
        (BETWEEN, 1, "cyan none\nclear 4."),
        (BETWEEN, 2, "cyan 1 5\nclear 4."),
    ],
)
def test_a_guess_is_hidden(event, num_looks, lead):
    *calls, answer = clip_turns(event, num_looks)
    assert len(calls) == num_looks
    assert answer.text.startswith(lead)
    assert [answer.text[start:end] for start, end in answer.hidden] == [event.digit]
    assert answer.hidden[0][0] == len(lead) - 2


def test_what_is_known_is_not_hidden():
    assert clip_turns(ON_SHEET, 2)[-1].hidden == ()
    assert clip_turns(BETWEEN, 3)[-1].hidden == ()
    assert (needed_looks("on_sheet"), needed_looks("between")) == (2, 3)


def test_the_oracle_shows_the_tag(clips, tmp_path):
    """Its programs, run on the encoded clip: the last one shows the asked tag at full size."""
    on_sheet = [clip for clip in clips if clip.asked.kind == "on_sheet"]
    between = [clip for clip in clips if clip.asked.kind == "between"]
    for clip in (*on_sheet[:2], *between[:2]):
        write_clip(tmp_path / "clip.mp4", clip.frames)
        names = {"np": np, "plt": Mock(), "video_clue_0": VideoReader(tmp_path / "clip.mp4")}
        *calls, _ = oracle_clip_turns(clip.asked)
        for call in calls:
            exec(call.split("```python\n")[1].split("```")[0], names)
        shown = [call.args[0] for call in names["plt"].imshow.call_args_list]
        assert [image.shape for image in shown] == [(672, 672, 3)] * (len(calls) - 1) + [
            (84, 84, 3)
        ]
        sheet = np.asarray(shown[-2]).astype(int)
        for event in clip.events:
            frame = event.frame_on(names["s"])
            if frame is not None:
                row, column = divmod(frame // 4, 6)
                cell = sheet[112 * row : 112 * row + 112, 112 * column : 112 * column + 112]
                assert np.abs(cell - clip.frames[frame]).mean() < 6
        frame = clip.asked.frame_on(names["s"])
        assert np.abs(shown[-1].astype(int) - clip.frames[frame][14:98, 14:98]).mean() < 6
