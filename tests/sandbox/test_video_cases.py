"""Odd clips as `video_clue_0` of a confined runtime: the right frames, or an error to read."""

from __future__ import annotations

import ast
import shutil
import subprocess
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pyvision_rl.sandbox import CellResult, SandboxConfig
from tests.clips import encode
from tests.sandbox.conftest import Sandbox

CLIPS = Path(__file__).parents[3] / "shared" / "data" / "videos"
NUMBERS = """
def numbers(frames):
    means = [np.asarray(f).reshape(48, 8, 24).mean((0, 2)) for f in frames]
    return [int(((m > 127) << np.arange(8)).sum()) for m in means]
"""
"""Reads frame numbers off stripes, as `tests.clips.numbers` does."""


@pytest.fixture(scope="module")
def strict() -> Iterator[Sandbox]:
    made = Sandbox(SandboxConfig(isolation="strict"))
    yield made
    made.close()


def ask(sandbox: Sandbox, video: Path, *cells: str) -> CellResult:
    """The result of the last cell."""
    runtime = sandbox.runtime(videos=[video])
    try:
        return [runtime.run(cell) for cell in (NUMBERS, *cells)][-1]
    finally:
        runtime.close()


def value(sandbox: Sandbox, video: Path, expression: str) -> object:
    """What an expression is there."""
    result = ask(sandbox, video, f"print({expression})")
    assert result.kind == "ok", result.text
    return ast.literal_eval(result.text)


def add_streams(clip: Path, target: Path, audio_s: float, other: Path | None = None) -> None:
    """A container with silence of this length first, then a clip's video, then another's."""
    sources = [av.open(str(path)) for path in (clip, other) if path]
    with av.open(str(target), "w") as container:
        silence = container.add_stream("aac", rate=8000)
        videos = [container.add_stream_from_template(s.streams.video[0]) for s in sources]
        for start in range(0, int(8000 * audio_s), 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 8000, start, Fraction(1, 8000)
            container.mux(silence.encode(frame))
        container.mux(silence.encode())
        for source, stream in zip(sources, videos, strict=True):
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    container.mux(packet)
            source.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2 s: 50 frames at 25 per second."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    encode(path, [4 * n for n in range(50)], g="12", bf="2", crf="5")
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_variable_frame_rate(strict: Sandbox, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"vfr{suffix}"
    times = np.cumsum([0, *np.random.default_rng(0).integers(1, 9, 59)]).tolist()
    encode(path, times, crf="5")
    assert value(strict, path, "len(video_clue_0)") == 60
    assert value(strict, path, "numbers(video_clue_0.get_batch([59, 0, 31, 2]))") == [59, 0, 31, 2]
    begin = value(strict, path, "video_clue_0.get_frame_timestamp([31])[0, 0].tolist()")
    assert begin == pytest.approx(times[31] / 100, abs=1e-3)


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
@pytest.mark.parametrize(("degrees", "shape"), [(90, (64, 48, 3)), (180, (48, 64, 3))])
def test_rotation(
    strict: Sandbox, clip: Path, tmp_path: Path, degrees: int, shape: tuple[int, ...]
) -> None:
    turned = tmp_path / "turned.mp4"
    rotate = ["-c", "copy", "-metadata:s:v:0", f"rotate={degrees}"]
    subprocess.check_call(["ffmpeg", "-v", "error", "-i", clip, *rotate, turned])
    assert value(strict, turned, "video_clue_0[5].shape") == shape
    upright = value(strict, turned, f"numbers([np.rot90(video_clue_0[5], -{degrees // 90})])")
    assert upright == [5]


def test_several_streams(strict: Sandbox, clip: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.mp4"
    encode(other, [8 * n for n in range(9)], crf="5")
    both = tmp_path / "both.mp4"
    add_streams(clip, both, 2.0, other)
    with av.open(str(both)) as container:
        assert [stream.type for stream in container.streams] == ["audio", "video", "video"]
    assert value(strict, both, "len(video_clue_0)") == 50
    assert value(strict, both, "numbers(video_clue_0[40:38:-1])") == [40, 39]


def test_a_container_longer_than_its_stream(strict: Sandbox, clip: Path, tmp_path: Path) -> None:
    longer = tmp_path / "longer.mp4"
    add_streams(clip, longer, 5.0)
    with av.open(str(longer)) as container:
        assert (container.duration or 0) / 1e6 > 4.9
    assert value(strict, longer, "len(video_clue_0)") == 50
    assert value(strict, longer, "numbers([video_clue_0[-1]])") == [49]
    end = value(strict, longer, "video_clue_0.get_frame_timestamp(49)[1].tolist()")
    assert end == pytest.approx(2.0, abs=1e-3)


@pytest.mark.skipif(not CLIPS.is_dir(), reason=f"no clips in {CLIPS}")
def test_a_real_container_longer_than_its_stream(strict: Sandbox) -> None:
    # ffprobe: the container 13.013 s, the stream 13.000 s and 325 frames
    path = CLIPS / "nasa_13013.mp4"
    assert value(strict, path, "(len(video_clue_0), video_clue_0.get_avg_fps())") == (325, 25.0)
    assert value(strict, path, "video_clue_0.get_frame_timestamp(-1)[1].tolist()") == 13.0


def test_a_truncated_file(strict: Sandbox, clip: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.mkv", tmp_path / "cut.mkv"
    encode(whole, [4 * n for n in range(100)], g="12", crf="1")
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    kept = value(strict, cut, "len(video_clue_0)")
    assert isinstance(kept, int)
    assert 20 < kept < 100
    assert value(strict, cut, "numbers([video_clue_0[0], video_clue_0[15]])") == [0, 15]
    # an mp4 file has its index at its end
    headless = tmp_path / "headless.mp4"
    headless.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    result = ask(strict, headless, "video_clue_0[0]")
    assert result.kind == "error"
    assert result.text.splitlines()[-1].startswith(
        "pyvision_rl.sandbox.timeline.VideoError: the video cannot be opened"
    )


def test_an_index_out_of_range(strict: Sandbox, clip: Path) -> None:
    for code in ("video_clue_0[50]", "video_clue_0.get_batch([0, 50])"):
        result = ask(strict, clip, code)
        assert result.kind == "error"
        assert result.text.splitlines()[-1] == (
            "IndexError: frame 50 is out of range: the video has 50 frames"
        )
    assert value(strict, clip, "video_clue_0[40:90].shape") == (10, 48, 64, 3)


def test_code_written_for_decord(strict: Sandbox, clip: Path) -> None:
    code = """
import decord
from decord import VideoReader, cpu
decord.bridge.set_bridge("native")
vr = video_clue_0
assert isinstance(vr, VideoReader) and cpu(0)
indices = np.linspace(0, len(vr) - 1, 4).astype(int)
frames = vr.get_batch(indices).asnumpy()
print(numbers(frames), numbers([vr[7].asnumpy(), vr.next().asnumpy()]))
"""
    result = ask(strict, clip, code)
    assert result.kind == "ok", result.text
    assert result.text == "[0, 16, 32, 49] [7, 0]\n"
