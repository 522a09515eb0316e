"""Figures: the pixels are those of `savefig`, and in the pixels style those of the image itself."""

from __future__ import annotations

import io
from collections.abc import Callable

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle
from matplotlib.patches import Circle, Rectangle
from PIL import Image

from pyvision_rl.sandbox.inside.drawing import copy_markers_lightly
from pyvision_rl.sandbox.inside.figures import fit_to_image, lone_image, render, undecorated_pixels
from tests.sandbox.conftest import Sandbox

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (60, 84, 3), dtype=np.uint8)
MAX_PX = 4096 * 4096


def grid() -> None:
    _, axes = plt.subplots(2, 3)
    for axis in axes.flat:
        axis.imshow(PHOTO)


def image_with_box() -> None:
    plt.imshow(PHOTO)
    plt.gca().add_patch(Rectangle((5, 5), 20, 10, fill=False, color="red"))


def colorbar() -> None:
    plt.imshow(PHOTO[..., 0], cmap="viridis")
    plt.colorbar()


def twin() -> None:
    plt.plot([1, 2, 3])
    plt.twinx()
    plt.plot([3, 1, 2], "r--")


def surface() -> None:
    axes = plt.figure().add_subplot(projection="3d")
    x, y = np.meshgrid(np.linspace(0, 1, 8), np.linspace(0, 1, 8))
    axes.plot_surface(x, y, x * y)


KINDS: dict[str, Callable[[], object]] = {
    "empty": lambda: plt.figure(),
    "line": lambda: plt.plot([1, 3, 2]),
    "scatter": lambda: plt.scatter(RNG.random(30), RNG.random(30), c=RNG.random(30), alpha=0.5),
    "bar": lambda: plt.bar(["a", "b"], [1, 2]),
    "histogram": lambda: plt.hist(RNG.random(100)),
    "pie": lambda: plt.pie([1, 2, 3], labels=["a", "b", "c"]),
    "box": lambda: plt.boxplot(RNG.random((20, 3))),
    "contour": lambda: plt.contourf(RNG.random((9, 9))),
    "image": lambda: plt.imshow(PHOTO),
    "image with box": image_with_box,
    "grey image": lambda: plt.imshow(PHOTO[..., 0], cmap="gray"),
    "colour bar": colorbar,
    "grid": grid,
    "text": lambda: plt.text(0.5, 0.5, r"$\sum_i x_i$ 中 é", fontsize=20),
    "legend": lambda: (plt.plot([1, 2], label="a"), plt.legend()),
    "log": lambda: plt.loglog([1, 10, 100], [1, 2, 3]),
    "polar": lambda: plt.polar([0, 1, 2], [1, 2, 3]),
    "twin": twin,
    "surface": surface,
    "quiver": lambda: plt.quiver(RNG.random((4, 4)), RNG.random((4, 4))),
    "tight": lambda: plt.subplots(2, 2, layout="tight"),
    "dark": lambda: plt.gcf().set_facecolor("black"),
    "markers": lambda: [
        plt.plot([1, 2], [k, k], marker=marker, fillstyle=style, markersize=20)
        for k, (marker, style) in enumerate(
            [("o", "full"), ("<", "left"), ("s", "none"), (5, None)]
        )
    ],
    "turned markers": lambda: plt.scatter(
        [1, 2], [1, 2], marker=MarkerStyle("^").rotated(deg=30).scaled(4), s=300
    ),
    "minor ticks": lambda: (plt.plot([1, 2]), plt.minorticks_on(), plt.grid(True, which="both")),
    "odd size": lambda: plt.figure(figsize=(3.333, 1.777), dpi=77).gca().plot([1, 2]),
}


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("draw", KINDS.values(), ids=KINDS.keys())
def test_a_shown_figure_has_the_pixels_of_savefig(
    draw: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = RNG.bit_generator.state
    plt.close("all")
    draw()
    file = io.BytesIO()
    plt.gcf().savefig(file, format="png")
    expected = np.asarray(Image.open(file).convert("RGB"))
    plt.close("all")
    monkeypatch.setattr(MarkerStyle, "_set_marker", vars(MarkerStyle)["_set_marker"])  # to restore
    copy_markers_lightly()
    RNG.bit_generator.state = state  # the same figure anew: a layout may move at each drawing
    draw()
    assert np.array_equal(np.asarray(render(plt.gcf(), "matplotlib", MAX_PX)), expected)
    plt.close("all")


FLOATS = RNG.random((31, 47))
HOLES = np.where(FLOATS > 0.5, np.nan, FLOATS)
RGBA = np.dstack([PHOTO, RNG.integers(0, 256, PHOTO.shape[:2], dtype=np.uint8)])
ALONE: dict[str, Callable[[], object]] = {
    "uint8": lambda: plt.imshow(PHOTO),
    "pil": lambda: plt.imshow(Image.fromarray(PHOTO)),
    "pil grey": lambda: plt.imshow(Image.fromarray(PHOTO).convert("L"), cmap="gray"),
    "pil 1-bit": lambda: plt.imshow(Image.fromarray(PHOTO).convert("1")),
    "pil palette": lambda: plt.imshow(Image.fromarray(PHOTO).convert("P")),
    "float rgb": lambda: plt.imshow(PHOTO / 255.0),
    "float32 rgb": lambda: plt.imshow((PHOTO / 255.0).astype(np.float32)),
    "float grey": lambda: plt.imshow(FLOATS, cmap="gray"),
    "float32 viridis": lambda: plt.imshow(FLOATS.astype(np.float32)),
    "integers": lambda: plt.imshow(PHOTO[..., 0].astype(np.int64)),
    "bool": lambda: plt.imshow(FLOATS > 0.5),
    "limits": lambda: plt.imshow(PHOTO[..., 1], cmap="jet", vmin=50, vmax=100),
    "constant": lambda: plt.imshow(np.zeros((9, 9))),
    "logarithmic": lambda: plt.imshow(FLOATS + 0.1, norm="log"),
    "opaque rgba": lambda: plt.imshow(np.dstack([PHOTO, np.full(PHOTO.shape[:2], 255, np.uint8)])),
    "title and axis off": lambda: (plt.imshow(PHOTO), plt.title("x"), plt.axis("off")),
    "labels": lambda: (plt.imshow(PHOTO), plt.xlabel("x"), plt.xticks([1, 2])),
    "auto aspect": lambda: plt.imshow(PHOTO, aspect="auto"),
    "one pixel": lambda: plt.imshow(PHOTO[:1, :1]),
    "tight layout": lambda: (plt.imshow(PHOTO), plt.tight_layout()),
}
SLOW: dict[str, Callable[[], object]] = {
    "upper rows last": lambda: plt.imshow(PHOTO, origin="lower"),
    "transparent": lambda: plt.imshow(RGBA),
    "faded": lambda: plt.imshow(PHOTO, alpha=0.5),
    "holes": lambda: plt.imshow(HOLES),
    "zoomed": lambda: (plt.imshow(PHOTO), plt.xlim(0, 10)),
    "a line over it": lambda: (plt.imshow(PHOTO), plt.plot([0, 50], [0, 50])),
    "text over it": lambda: (plt.imshow(PHOTO), plt.text(5, 20, "a")),
    "clipped": lambda: plt.imshow(PHOTO).set_clip_path(
        Circle((20, 20), 9, transform=plt.gca().transData)
    ),
    "hidden": lambda: plt.imshow(PHOTO).set_visible(False),
}


def lone(draw: Callable[[], object]) -> tuple[Figure, matplotlib.image.AxesImage]:
    plt.close("all")
    draw()
    image = lone_image(plt.gcf())
    assert image is not None
    return plt.gcf(), image


@pytest.mark.parametrize("draw", ALONE.values(), ids=ALONE.keys())
def test_taking_the_image_equals_drawing_it(draw: Callable[[], object]) -> None:
    figure, image = lone(draw)
    taken = undecorated_pixels(figure, image)
    assert taken is not None
    fit_to_image(figure, image)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[..., :3]
    assert taken.shape == drawn.shape
    assert np.array_equal(taken, drawn)


@pytest.mark.parametrize("draw", SLOW.values(), ids=SLOW.keys())
def test_anything_else_in_the_axes_is_drawn(draw: Callable[[], object]) -> None:
    figure, image = lone(draw)
    assert undecorated_pixels(figure, image) is None
    height, width = image.get_size()
    assert render(figure, "pixels", MAX_PX).size == (width, height)
    plt.close("all")


def test_an_image_keeps_its_size_whatever_it_is() -> None:
    for side in (1, 2, 3, 7, 28, 29, 56, 57, 58, 84, 113, 640, 1001):
        plt.close("all")
        plt.imshow(np.zeros((side, 7 + side, 3), np.uint8))
        plt.plot([0], [0])
        assert render(plt.gcf(), "pixels", MAX_PX).size == (7 + side, side)
    plt.close("all")


@pytest.mark.parametrize(
    "draw",
    [
        lambda: (plt.figure(figsize=(3, 3)), plt.imshow(PHOTO)),
        lambda: plt.subplots(1, 2)[1][0].imshow(PHOTO),
        lambda: (plt.imshow(PHOTO), plt.imshow(PHOTO)),
        lambda: plt.plot([1, 2]),
    ],
    ids=["chosen size", "two axes", "two images", "no image"],
)
def test_other_figures_keep_their_look(draw: Callable[[], object]) -> None:
    plt.close("all")
    draw()
    expected = render(plt.gcf(), "matplotlib", MAX_PX)
    assert render(plt.gcf(), "pixels", MAX_PX).tobytes() == expected.tobytes()
    plt.close("all")


def test_a_crop_comes_back_pixel_for_pixel(pixel_sandbox: Sandbox) -> None:
    image = Image.fromarray(RNG.integers(0, 256, (672, 672, 3), dtype=np.uint8))
    runtime = pixel_sandbox.runtime(images=[image])
    code = "plt.imshow(image_clue_0.crop((84, 168, 168, 252))); plt.show()"
    (shown,) = runtime.run(code).images
    assert shown == image.crop((84, 168, 168, 252))
    (again,) = runtime.run("plt.imshow(image_clue_1); plt.axis('off'); plt.show()").images
    assert again == shown
    runtime.close()
