import json
from hashlib import sha256

import av
import pytest

from pyvision_rl.data.needle import item_seed
from pyvision_rl.data.needle_video import make_clip
from pyvision_rl.data.needle_video_files import (
    PLANS_FILE,
    TEST_FILE,
    TRAIN_FILE,
    NeedleVideoConfig,
    load_events,
    write_needle_video,
)
from pyvision_rl.data.readers import read_tasks
from pyvision_rl.errors import ConfigError, InputError

SMALL = NeedleVideoConfig(num_train=3, num_test=2, seed=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("needle") / "set"
    write_needle_video(folder, SMALL)
    return folder


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).digest() for path in files}


@pytest.mark.parametrize(
    ("file", "split", "count"), [(TRAIN_FILE, "train", 3), (TEST_FILE, "test", 2)]
)
def test_tasks_point_to_their_clips(folder, file, split, count):
    tasks = read_tasks(folder / file)
    events = load_events(folder)
    assert len(tasks) == count
    for index, task in enumerate(tasks):
        clip = make_clip(item_seed(split, 4, index))
        (video,) = task.videos
        assert events[video.name] == clip.asked
        assert (task.question, task.answer) == (clip.question, clip.asked.digit)
        assert (task.ability, task.source, task.images) == (clip.asked.kind, "needle-video", ())


def test_training_rows_have_the_released_layout(folder):
    row = json.loads((folder / TRAIN_FILE).read_text())[1]
    clip = make_clip(item_seed("train", 4, 1))
    assert row["prompt"] == [{"role": "user", "content": f"<video>\n{clip.question}"}]
    assert row["mm_hint"] == {"hint_path": "videos/train_000001.mp4", "hint_type": "video"}
    assert row["env_name"] == "pyvision_gym_wo_video_hint"
    assert row["extra_info"]["frames"] == [clip.asked.first, clip.asked.end]


def test_clips_are_h264(folder):
    with av.open(folder / "videos" / "test_000000.mp4") as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert (stream.width, stream.height, stream.average_rate) == (112, 112, 12)
        assert sum(1 for _ in container.decode(stream)) == stream.frames == 144


def test_same_config_same_bytes(folder, tmp_path):
    write_needle_video(tmp_path / "again", SMALL)
    assert digest(tmp_path / "again") == digest(folder)


def test_only_the_same_set_is_left_alone(folder):
    before = (folder / TRAIN_FILE).stat().st_mtime_ns
    write_needle_video(folder, SMALL)
    assert (folder / TRAIN_FILE).stat().st_mtime_ns == before
    with pytest.raises(InputError, match="another needle-video data set"):
        write_needle_video(folder, NeedleVideoConfig(num_train=3, num_test=2, seed=5))


def test_bad_numbers_are_refused():
    with pytest.raises(ConfigError, match=r"needle_video\.num_test: -1 is not from 0"):
        NeedleVideoConfig(num_test=-1)


def test_bad_plans_name_the_file(tmp_path):
    (tmp_path / PLANS_FILE).write_text('{"events": {"a.mp4": {"colour": "red"}}}')
    with pytest.raises(InputError, match=r"needle_video_plans\.json"):
        load_events(tmp_path)
