"""Files of every colour mode as RGB, with pixel values worked out by hand."""

import contextlib
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pyvision_rl.data.media import MAX_ASPECT, load_image
from pyvision_rl.errors import InputError
from pyvision_rl.model import images

RED, BLUE = (255, 0, 0), (0, 0, 255)


def reload(image: Image.Image, path: Path, **options: Any) -> Image.Image:
    image.save(path, **options)
    loaded = load_image(path)
    assert loaded.mode == "RGB"
    return loaded


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 255))
    loaded = reload(image, tmp_path / "a.png")
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), RED]
    grey = reload(Image.new("LA", (1, 1), (0, 0)), tmp_path / "b.png")
    assert grey.getpixel((0, 0)) == (255, 255, 255)


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    loaded = reload(image, tmp_path / "a.png")
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [RED, BLUE]
    loaded = reload(image, tmp_path / "b.png", transparency=0)
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), BLUE]


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    loaded = reload(Image.fromarray(values), tmp_path / "a.png")
    assert np.asarray(loaded)[0, :, 0].tolist() == [0, 100, 255]
    floats = np.array([[0.0, 0.2, 1.0]], dtype=np.float32)
    loaded = reload(Image.fromarray(floats), tmp_path / "a.tiff")
    assert np.asarray(loaded)[0, :, 0].tolist() == [0, 51, 255]


def test_cmyk_grey_and_one_bit(tmp_path: Path) -> None:
    cmyk = reload(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), tmp_path / "a.jpg", quality=100)
    assert np.abs(np.asarray(cmyk)[4, 4].astype(int) - RED).max() <= 3
    assert reload(Image.new("L", (1, 1), 7), tmp_path / "b.png").getpixel((0, 0)) == (7, 7, 7)
    assert reload(Image.new("1", (1, 1), 1), tmp_path / "c.png").getpixel((0, 0)) == (255,) * 3


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 2), RED)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to the right
    assert reload(image, tmp_path / "a.jpg", exif=exif).size == (2, 4)


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (2, 2), colour) for colour in (RED, BLUE)]
    path = tmp_path / "a.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert load_image(path).getpixel((0, 0)) == RED


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")
@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tiff", "webp"])
def test_every_truncation_is_refused_or_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert "not a readable image" in refused(path)
    num_read = 0
    for end in range(0, len(data), max(1, len(data) // 40)):
        path.write_bytes(data[:end])
        with contextlib.suppress(InputError):
            num_read += load_image(path).size == (20, 20)
    assert num_read < 5


def test_not_an_image(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    assert refused(path) == f"{path}: no such image file"
    path.write_text("hello")
    assert "not a readable image" in refused(path)
    assert "not a readable image" in refused(tmp_path)


@pytest.mark.parametrize("side", [10_000, 60_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    path = tmp_path / "a.png"
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    assert "89,478,485" in refused(path)


def test_a_strip_that_no_vision_tower_takes_is_refused(tmp_path: Path) -> None:
    assert reload(Image.new("RGB", (400, 2)), tmp_path / "a.png").size == (400, 2)
    path = tmp_path / "b.png"
    Image.new("RGB", (2, 401)).save(path)
    assert refused(path) == f"{path}: 2 x 401 pixels; one side may be at most 200 times the other"
    assert MAX_ASPECT == images.MAX_ASPECT
