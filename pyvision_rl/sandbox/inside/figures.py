"""What `plt.show()` does inside a runtime: open figures become RGB images, bound to the next
`image_clue_k`.
"""

from __future__ import annotations

import functools
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image

from pyvision_rl.sandbox.config import FigureStyle
from pyvision_rl.sandbox.inside.drawing import garbage_left
from pyvision_rl.sandbox.wire import FIGURES_PER_CELL, MAX_ASPECT

MAX_SHARED_PX = 2**20

Pixels = npt.NDArray[np.uint8]


class FigureCapture:
    """Stands in for `pyplot.show` and `Figure.show`, however the code spells them."""

    def __init__(
        self,
        namespace: dict[str, Any],
        style: FigureStyle,
        limits: tuple[int, int],
    ) -> None:
        self._namespace = namespace
        self.next_index = 0
        self._style = style
        self._max_figures, self._max_px = limits
        self._px_left = FIGURES_PER_CELL * self._max_px
        self.shown: list[Image.Image] = []
        self.num_dropped = 0

    def begin(self) -> None:
        """Forget the last cell's figures and hook again, in case code replaced the hooks."""
        self.shown = []
        self.num_dropped = 0
        self._px_left = FIGURES_PER_CELL * self._max_px
        plt.show = self._show_all
        capture = self._show_one

        def show(figure: Figure, warn: bool = True) -> None:
            """Return the figure as an image."""
            capture(figure)

        setattr(Figure, "show", show)  # noqa: B010 - a method is replaced on purpose

    def _spend(self, num_px: int) -> None:
        if num_px > self._px_left:
            most = FIGURES_PER_CELL * self._max_px
            raise ValueError(f"the figures of one cell may have {most} pixels together")
        self._px_left -= num_px

    def _show_all(self, *_: object, **__: object) -> None:
        """Return every open figure as an image and close it."""
        for number in plt.get_fignums():
            self._show_one(plt.figure(number))

    def _show_one(self, figure: Figure) -> None:
        if len(self.shown) >= self._max_figures:
            self.num_dropped += 1
        else:
            try:
                image = render(figure, self._style, self._max_px)
                self._spend(image.width * image.height)
            finally:
                plt.close(figure)
            self._namespace[f"image_clue_{self.next_index}"] = image
            self.next_index += 1
            self.shown.append(image)
        plt.close(figure)


def render(figure: Figure, style: FigureStyle, max_px: int) -> Image.Image:
    """The RGB pixels that `savefig(format="png")` would have written, without the detour through
    PNG.
    """
    image = lone_image(figure) if style == "pixels" else None
    if image is not None:
        height, width = image.get_size()
        check_size(width, height, max_px)
        pixels = undecorated_pixels(figure, image)
        if pixels is not None:
            return Image.fromarray(pixels)
        fit_to_image(figure, image)
    width, height = (int(side) for side in figure.bbox.size)
    check_size(width, height, max_px)
    canvas = shared_canvas(figure) if width * height <= MAX_SHARED_PX else FigureCanvasAgg(figure)
    with garbage_left():
        canvas.draw()
    # Read as RGBX: the pixels are copied once, and the fourth byte is padding to Pillow too.
    return Image.frombytes("RGB", (width, height), canvas.buffer_rgba(), "raw", "RGBX")


@functools.cache
def only_canvas() -> FigureCanvasAgg:
    """The canvas that figures of ordinary size take turns on."""
    return FigureCanvasAgg(Figure())


def shared_canvas(figure: Figure) -> FigureCanvasAgg:
    """A canvas for `figure` whose renderer has measured common texts before: 10 % of a drawing."""
    canvas = only_canvas()
    canvas.figure = figure
    figure.set_canvas(canvas)
    return canvas


def check_size(width: int, height: int, max_px: int) -> None:
    """Raise `ValueError` for a figure that is empty, too large or too long for a vision model."""
    if width < 1 or height < 1:
        raise ValueError(f"a figure of {width}x{height} pixels cannot be shown")
    if width * height > max_px:
        raise ValueError(
            f"a figure of {width}x{height} pixels is too large: at most {max_px} pixels"
        )
    if max(width, height) >= MAX_ASPECT * min(width, height):
        raise ValueError(
            f"a figure of {width}x{height} pixels is too long: "
            f"its aspect ratio must be below {MAX_ASPECT}"
        )


def lone_image(figure: Figure) -> AxesImage | None:
    """The only image of the only axes of a figure whose size the code left at its default."""
    default = matplotlib.rcParamsDefault
    if tuple(figure.get_size_inches()) != tuple(default["figure.figsize"]):
        return None
    if figure.dpi != default["figure.dpi"] or len(figure.axes) != 1 or figure.subfigs:
        return None
    images = figure.axes[0].images
    return images[0] if len(images) == 1 and type(images[0]) is AxesImage else None


def undecorated_pixels(figure: Figure, image: AxesImage) -> Pixels | None:
    """What drawing `image` alone at its own size gives, when nothing else would be seen; costs no
    drawing.
    """
    axes = figure.axes[0]
    drawn_over = (axes.lines, axes.patches, axes.texts, axes.collections, axes.artists, axes.tables)
    beside = (figure.lines, figure.patches, figure.images, figure.artists, figure.legends)
    if any(map(len, drawn_over + beside)) or axes.child_axes or axes.get_legend():
        return None
    if not is_plain(axes, image):
        return None
    array = image.get_array()
    if array is None:
        return None
    rgba = image.to_rgba(array, bytes=True)
    if rgba[..., 3].min() < 255:
        return None
    return np.ascontiguousarray(rgba[..., :3])


def is_plain(axes: Axes, image: AxesImage) -> bool:
    """Whether each pixel of `image` would land on one pixel of a figure of its size, unchanged."""
    height, width = image.get_size()
    edges = (-0.5, width - 0.5, height - 0.5, -0.5)
    return (
        tuple(image.get_extent()) == edges
        and axes.get_xlim() + axes.get_ylim() == edges
        and axes.get_xscale() == axes.get_yscale() == "linear"
        and axes.get_visible()
        and image.get_visible()
        and image.get_alpha() is None
        and image.get_clip_path() is None
        and image.get_agg_filter() is None
        and image.get_transform() == axes.transData
    )


def fit_to_image(figure: Figure, image: AxesImage) -> None:
    """Give the figure the image's size in pixels and its axes the whole figure, without frame or
    ticks.
    """
    height, width = image.get_size()
    axes = figure.axes[0]
    figure.set_layout_engine("none")
    # A size that is a hair too large survives the truncation to whole pixels.
    figure.set_size_inches((width + 1e-3) / figure.dpi, (height + 1e-3) / figure.dpi)
    axes.set_position((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    for title in figure.texts:
        title.set_visible(False)
    image.set_interpolation("nearest")
