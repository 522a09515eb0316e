"""The video reader against ffprobe and ffmpeg, on real clips and on clips that the tests encode."""

from __future__ import annotations

import json
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pyvision_rl.sandbox.video import VideoError, VideoReader
from tests.clips import encode, numbers
from tests.sandbox.conftest import Sandbox

CLIPS = Path(__file__).parents[3] / "shared" / "data" / "videos"
needs_ffmpeg = pytest.mark.skipif(
    not (shutil.which("ffmpeg") and shutil.which("ffprobe")), reason="ffmpeg is not installed"
)
needs_clips = pytest.mark.skipif(not CLIPS.is_dir(), reason=f"no clips in {CLIPS}")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """100 frames at 25 per second, a key frame every 12, B frames between."""
    path = tmp_path / "clip.mp4"
    encode(path, [4 * n for n in range(100)], g="12", bf="2", crf="5", sc_threshold="0")
    return path


def probe(path: Path) -> dict[str, str]:
    entries = "stream=width,height,avg_frame_rate,nb_read_frames,duration"
    command = ["ffprobe", "-v", "error", "-count_frames", "-select_streams", "v:0"]
    output = subprocess.check_output([*command, "-show_entries", entries, "-of", "json", path])
    return json.loads(output)["streams"][0]


@needs_ffmpeg
@needs_clips
@pytest.mark.parametrize("name", ["bigbuckbunny.mp4", "nasa_13013.mp4"])
def test_real_clips_agree_with_ffprobe(name: str) -> None:
    expected = probe(CLIPS / name)
    reader = VideoReader(CLIPS / name)
    assert len(reader) == int(expected["nb_read_frames"])
    assert reader.get_avg_fps() == float(Fraction(expected["avg_frame_rate"]))
    assert reader[0].shape == (int(expected["height"]), int(expected["width"]), 3)
    end = reader.get_frame_timestamp(len(reader) - 1)[1]
    assert end == pytest.approx(float(expected["duration"]), abs=1e-3)


@needs_clips
@pytest.mark.parametrize("name", ["nasa_13013.mp4"])
def test_random_frames_are_those_that_decoding_in_order_gives(name: str) -> None:
    reader = VideoReader(CLIPS / name)
    wanted = np.random.default_rng(0).choice(len(reader), 12).tolist()
    in_order: dict[int, np.ndarray] = {}
    with av.open(str(CLIPS / name)) as container:
        for number, frame in enumerate(container.decode(container.streams.video[0])):
            if number in wanted:
                in_order[number] = frame.to_ndarray(format="rgb24")
    for number in wanted:
        assert np.array_equal(reader[number].asnumpy(), in_order[number])


@needs_clips
@pytest.mark.parametrize("name", ["bigbuckbunny.mp4"])
def test_pixels_equal_decord_where_it_is_installed(name: str) -> None:
    decord = pytest.importorskip("decord")
    theirs, ours = decord.VideoReader(str(CLIPS / name)), VideoReader(CLIPS / name)
    indices = [0, 1, 60, 131, 7, 7, 130]
    assert len(theirs) == len(ours)
    assert np.array_equal(theirs.get_batch(indices).asnumpy(), ours.get_batch(indices).asnumpy())
    assert theirs.get_key_indices() == ours.get_key_indices()
    assert theirs.get_frame_timestamp(range(9)) == pytest.approx(ours.get_frame_timestamp(range(9)))


def test_every_way_to_ask_for_frames(clip: Path) -> None:
    reader = VideoReader(clip)
    assert (len(reader), reader.get_avg_fps()) == (100, 25.0)
    assert numbers(reader.get_batch([70, 3, 3, -1, 12])) == [70, 3, 3, 99, 12]
    assert numbers(reader[5:12:3]) == [5, 8, 11]
    assert numbers(reader[::-33]) == [99, 66, 33, 0]
    assert numbers(reader[np.array([2, 1])]) == [2, 1]
    assert numbers([reader[-1], reader[np.int64(50)]]) == [99, 50]
    assert numbers([frame for frame, _ in zip(reader, range(4), strict=False)]) == [0, 1, 2, 3]
    assert reader.get_batch([]).shape == (0, 48, 64, 3)
    reader.seek(40)
    assert numbers([reader.next(), next(reader)]) == [40, 41]
    reader.skip_frames(8)
    assert numbers([reader.next()]) == [50]
    reader.seek_accurate(99)
    reader.next()
    with pytest.raises(StopIteration):
        reader.next()


def test_key_frames_and_times(clip: Path) -> None:
    reader = VideoReader(clip)
    assert numbers([reader[50]]) == [50]
    assert reader.get_key_indices() == list(range(0, 100, 12))
    assert numbers([reader[40]]) == [40]
    assert reader.get_frame_timestamp(10) == pytest.approx([0.4, 0.44])
    assert reader.get_frame_timestamp([0, 99]) == pytest.approx(np.array([[0, 0.04], [3.96, 4.0]]))


def test_the_frame_rate_is_that_of_the_frames(clip: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.mkv"
    with av.open(str(clip)) as source, av.open(str(copy), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.pts is not None and packet.dts is not None:
                packet.pts, packet.dts, packet.stream = 2 * packet.pts, 2 * packet.dts, stream
                target.mux(packet)
    with av.open(str(copy)) as container:
        said = container.streams.video[0].average_rate
    assert said != Fraction(25, 2)  # what makes this a test
    assert VideoReader(copy).get_avg_fps() == pytest.approx(12.5, rel=1e-3)


def test_beyond_the_end_is_an_index_error(clip: Path) -> None:
    reader = VideoReader(clip)
    for index in (100, -101):
        with pytest.raises(IndexError, match=f"frame {index} is out of range: the video has 100"):
            reader[index]
    with pytest.raises(IndexError):
        reader.get_batch([0, 100])


@pytest.mark.parametrize("options", [{"g": "12", "bf": "2"}, {"g": "250", "bf": "0"}])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_variable_frame_rate(tmp_path: Path, suffix: str, options: dict[str, str]) -> None:
    times = np.cumsum([0, *np.random.default_rng(0).integers(1, 9, 59)]).tolist()
    encode(tmp_path / f"vfr{suffix}", times, crf="5", **options)
    reader = VideoReader(tmp_path / f"vfr{suffix}")
    assert len(reader) == 60
    assert numbers(reader.get_batch([59, 0, 31, 30, 2])) == [59, 0, 31, 30, 2]
    starts = reader.get_frame_timestamp(range(60))[:, 0]
    assert starts == pytest.approx(np.array(times) / 100, abs=1e-3)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "libvpx-vp9", "libx265"])
def test_open_groups_and_other_codecs(tmp_path: Path, codec: str) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    path = tmp_path / ("clip.webm" if "vp9" in codec else "clip.mp4")
    options = {"g": "10", "bf": "2"} | ({"x264-params": "open-gop=1"} if "264" in codec else {})
    encode(path, [4 * n for n in range(60)], codec, **options)
    reader = VideoReader(path)
    order = np.random.default_rng(1).permutation(60).tolist()
    assert numbers(reader.get_batch(order)) == order
    assert [numbers([reader[n]])[0] for n in order[:20]] == order[:20]


@needs_ffmpeg
def test_a_rotated_clip_comes_upright(tmp_path: Path) -> None:
    flat, turned = tmp_path / "flat.mp4", tmp_path / "turned.mp4"
    source = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=5:duration=1", "-pix_fmt", "yuv420p"]
    subprocess.check_call(["ffmpeg", "-v", "error", *source, flat])
    rotate = ["-c", "copy", "-metadata:s:v:0", "rotate=90"]
    subprocess.check_call(["ffmpeg", "-v", "error", "-i", flat, *rotate, turned])
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-frames:v", "1", "-"]
    upright = subprocess.check_output(["ffmpeg", "-v", "error", "-i", turned, *raw])
    expected = np.frombuffer(upright, np.uint8).reshape(64, 48, 3)
    frame = VideoReader(turned)[0].asnumpy()
    assert frame.shape == (64, 48, 3)
    assert np.abs(frame.astype(int) - expected).mean() < 3  # two ways from YUV to RGB


def test_a_size_can_be_asked_for(clip: Path) -> None:
    assert VideoReader(clip, width=32, height=16)[0].shape == (16, 32, 3)


def test_files_that_are_no_videos_say_so(tmp_path: Path, clip: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    with pytest.raises(VideoError, match="cannot be opened"):
        VideoReader(text)
    headless = tmp_path / "headless.mp4"  # the index of an mp4 file is at its end
    headless.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    with pytest.raises(VideoError, match="cannot be opened"):
        VideoReader(headless)


def test_a_truncated_file_gives_what_it_has(tmp_path: Path) -> None:
    whole = tmp_path / "whole.mkv"
    encode(whole, [4 * n for n in range(100)], g="12", crf="1")
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    reader = VideoReader(cut)
    assert 20 < len(reader) < 100
    assert numbers([reader[0], reader[15]]) == [0, 15]


def test_a_truncated_file_with_its_index_in_front(clip: Path, tmp_path: Path) -> None:
    front, cut = tmp_path / "front.mp4", tmp_path / "cut.mp4"
    options = {"movflags": "faststart"}
    with av.open(str(clip)) as source, av.open(str(front), "w", options=options) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    cut.write_bytes(front.read_bytes()[: front.stat().st_size * 7 // 10])
    reader = VideoReader(cut)
    assert numbers([reader[0], reader[30]]) == [0, 30]
    with pytest.raises(VideoError, match="frame 99 cannot be decoded: "):
        reader[99]
    assert numbers([reader[20]]) == [20]


def test_in_the_sandbox_it_is_video_clue_k_and_decord(sandbox: Sandbox, clip: Path) -> None:
    runtime = sandbox.runtime(videos=[clip, clip])
    code = """
from decord import VideoReader, cpu
print(len(video_clue_0), video_clue_1.get_avg_fps(), isinstance(video_clue_0, VideoReader))
frame = video_clue_0[30].asnumpy()
print(type(frame).__name__, frame.shape, frame[24, 12::16, 0] > 127)
print(video_clue_1.get_batch([5, 90]).shape, video_clue_0)
"""
    result = runtime.run(code)
    assert result.kind == "ok"
    assert result.text.splitlines() == [
        "100 25.0 True",
        "ndarray (48, 64, 3) [ True  True False False]",  # 30 = 0b00011110
        "(2, 48, 64, 3) <VideoReader 100 frames, 64x48, 25.00 fps>",
    ]
    assert runtime.run("plt.imshow(video_clue_0[3]); plt.show()").images[0].size == (640, 480)
    runtime.close()


def test_a_broken_video_is_an_error_that_the_policy_reads(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    runtime = sandbox.runtime(videos=[tmp_path / "text.mp4"])
    result = runtime.run("len(video_clue_0)")
    assert result.kind == "error"
    assert "VideoError: the video cannot be opened: Invalid data" in result.text.splitlines()[-1]
    assert runtime.run("print(1)").text == "1\n"
    runtime.close()
