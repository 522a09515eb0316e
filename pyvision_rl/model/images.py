"""Images as the policy sees them: resized to whole visual tokens, and counted."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from pyvision_rl.errors import ConfigError, InputError

TOKEN_PX = 28
"""Side of the square that one visual token covers: patch size 14, merged 2 x 2."""

MAX_ASPECT = 200
"""Largest ratio of the sides that the vision tower is defined for."""


@dataclass(frozen=True)
class PixelLimits:
    """How many pixels an image may have in the context, given or shown (paper: 3136 to 2,000,000).

    One visual token covers 28 x 28 pixels.
    """

    min_pixels: int = 3136
    """Smaller images are enlarged to this."""
    max_pixels: int = 2_000_000
    """Larger images are reduced to this."""

    def __post_init__(self) -> None:
        if not TOKEN_PX**2 <= self.min_pixels <= self.max_pixels:
            raise ConfigError(
                f"pixels: need {TOKEN_PX**2} <= min_pixels <= max_pixels, "
                f"got min_pixels={self.min_pixels}, max_pixels={self.max_pixels}"
            )


def fit_image(image: Image.Image, limits: PixelLimits) -> Image.Image:
    """The image in RGB with both sides multiples of 28 and its pixels within the limits.

    Raises InputError where one side is more than 200 times the other.
    """
    width, height = image.size
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InputError(
            f"image of {width} x {height}: one side is over {MAX_ASPECT} times the other"
        )
    fit_height, fit_width = smart_resize(
        height, width, TOKEN_PX, limits.min_pixels, limits.max_pixels
    )
    image = image.convert("RGB")
    if (fit_width, fit_height) == image.size:
        return image
    return image.resize((fit_width, fit_height), Image.Resampling.BICUBIC)


def num_visual_tokens(image: Image.Image) -> int:
    """Visual tokens of an image that `fit_image` has made."""
    width, height = image.size
    return (width // TOKEN_PX) * (height // TOKEN_PX)
