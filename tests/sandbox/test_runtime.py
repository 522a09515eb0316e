"""What a cell sees and gives back."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pyvision_rl.errors import ConfigError, InputError
from pyvision_rl.sandbox import SandboxConfig
from tests.sandbox.conftest import Sandbox


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_names_persist_and_images_are_bound(sandbox: Sandbox) -> None:
    runtime = sandbox.runtime(images=[noise(20, 30), noise(5, 7, seed=1)])
    assert runtime.run("print(image_clue_0.size, image_clue_1.size); x = 41").text == (
        "(30, 20) (7, 5)\n"
    )
    result = runtime.run("print(x + 1)")
    assert (result.kind, result.text, result.images) == ("ok", "42\n", [])
    runtime.close()
    assert not runtime.alive


def test_given_pixels_arrive_unchanged(sandbox: Sandbox) -> None:
    image = noise(33, 17)
    runtime = sandbox.runtime(images=[image])
    expected = int(np.asarray(image).astype(np.int64).sum())
    assert runtime.run("print(int(np.asarray(image_clue_0).astype('int64').sum()))").text == (
        f"{expected}\n"
    )
    runtime.close()


@pytest.mark.parametrize(
    "spelling",
    [
        "plt.show()",
        "plt.show(block=False)",
        "from matplotlib import pyplot as p; p.show()",
        "import matplotlib.pyplot; matplotlib.pyplot.show()",
        "from matplotlib.pyplot import show; show()",
        "from matplotlib import pylab; pylab.show()",
        "plt.gcf().show()",
        "getattr(plt, 'sh' + 'ow')()",
    ],
)
def test_every_spelling_of_show_is_seen(sandbox: Sandbox, spelling: str) -> None:
    result = sandbox.run(f"matplotlib.use('Agg')\nplt.figure(figsize=(2, 1))\n{spelling}")
    assert (result.kind, [image.size for image in result.images]) == ("ok", [(200, 100)])


def test_shown_figures_are_numbered_after_the_given_images(sandbox: Sandbox) -> None:
    runtime = sandbox.runtime(images=[noise(4, 4)])
    first = runtime.run("for w in (1, 2):\n    plt.figure(figsize=(w, 1))\nplt.show()")
    assert [image.size for image in first.images] == [(100, 100), (200, 100)]
    runtime.run("plt.figure(figsize=(3, 1)); plt.show()")
    names = runtime.run("print([globals()[f'image_clue_{k}'].size for k in (1, 2, 3)])")
    assert names.text == "[(100, 100), (200, 100), (300, 100)]\n"
    runtime.close()


def test_figures_shown_before_an_error_are_kept(sandbox: Sandbox) -> None:
    result = sandbox.run("plt.figure(figsize=(1, 1)); plt.show(); 1 / 0")
    assert (result.kind, len(result.images)) == ("error", 1)
    assert result.text.endswith("ZeroDivisionError: division by zero")


def test_a_traceback_shows_the_frames_of_cells_only(sandbox: Sandbox) -> None:
    runtime = sandbox.runtime()
    runtime.run("def read(path):\n    return Image.open(path)")
    result = runtime.run("print('before')\nread('missing.png')")
    runtime.close()
    assert result.kind == "error"
    said = [line for line in result.text.splitlines() if set(line) - set(" ~^")]
    assert said == [  # without the marks under expressions: they are not those of every Python
        "before",
        "Traceback (most recent call last):",
        '  File "<cell 2>", line 2, in <module>',
        "    read('missing.png')",
        '  File "<cell 1>", line 2, in read',
        "    return Image.open(path)",
        "FileNotFoundError: [Errno 2] No such file or directory: 'missing.png'",
    ]


def test_a_syntax_error_names_the_line(sandbox: Sandbox) -> None:
    result = sandbox.run("x = 1\ny = = 2")
    assert result.kind == "error"
    assert '"<cell 1>", line 2' in result.text


def test_stdout_stderr_and_c_level_output_are_text(sandbox: Sandbox) -> None:
    result = sandbox.run("print('a'); print('b', file=sys.stderr); os.write(1, b'c')")
    assert result.text == "a\nb\nc"


def test_text_is_valid_unicode(sandbox: Sandbox) -> None:
    result = sandbox.run("print('é\\ud800')\nraise ValueError('\\udfff')")
    assert result.text.startswith("é?\n")
    assert result.text.encode().endswith(b"ValueError: ?")


def test_a_seed_decides_every_generator(sandbox: Sandbox) -> None:
    code = (
        "import random\n"
        "print(random.random(), np.random.rand(), np.random.default_rng().random())\n"
        "print({'a', 'b', 'c'}, np.random.default_rng(5).integers(1000))"
    )
    texts = []
    for seed in (7, 7, 8):
        runtime = sandbox.runtime(seed=seed)
        texts.append(runtime.run(code).text)
        runtime.close()
    assert texts[0] == texts[1]
    assert texts[0].splitlines()[0] != texts[2].splitlines()[0]
    expected = np.random.default_rng(5).integers(1000)
    assert texts[0].rstrip().endswith(f" {expected}")


def test_code_that_cannot_be_sent_is_an_error(sandbox: Sandbox) -> None:
    runtime = sandbox.runtime()
    assert runtime.run("#" * (2**20 + 1)).kind == "error"
    assert runtime.run("print('\ud800')").text == "?\n"
    assert runtime.run("x = '\0'").kind == "error"
    assert runtime.run("print(1)").text == "1\n"
    runtime.close()


def test_bad_configuration_and_missing_videos_are_refused(sandbox: Sandbox) -> None:
    with pytest.raises(ConfigError, match="timeout_s is 0"):
        SandboxConfig(timeout_s=0)
    with pytest.raises(InputError, match="seed -1"):
        sandbox.runtime(seed=-1)
    with pytest.raises(InputError, match="no such file"):
        sandbox.runtime(videos=["nowhere.mp4"])
    with pytest.raises(InputError, match="64 videos for one runtime: at most 63"):
        sandbox.runtime(videos=["clip.mp4"] * 64)
