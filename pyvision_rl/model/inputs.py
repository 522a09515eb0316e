"""From token ids and images to what the model is fed: content keys, patches, M-RoPE positions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL.Image import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from pyvision_rl.errors import InputError
from pyvision_rl.model.images import TOKEN_PX, num_visual_tokens

VISUAL_TOKENS_PER_FORWARD = 8192
"""Bound of one vision forward, about three images of two million pixels."""

FIRST_CONTENT = 2**60
"""Numbers from here on stand for images in `content_rows`, smaller ones are tokens."""


def image_key(image: Image) -> bytes:
    """A digest of the size and the pixels: equal images have equal keys."""
    digest = hashlib.blake2b(repr((image.mode, image.size)).encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.digest()


def make_patches(
    processor: Qwen2VLImageProcessorPil, images: Sequence[Image]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised patches [P, C] and grids [N, 3] of images that `fit_image` has made."""
    for image in images:
        if image.width % TOKEN_PX or image.height % TOKEN_PX:
            raise InputError(
                f"image of {image.width} x {image.height}: sides must be multiples of {TOKEN_PX}"
            )
    # The pixels are final: a second resize could only change them.
    batch = processor(images=list(images), do_resize=False, return_tensors="pt")
    return batch["pixel_values"], batch["image_grid_thw"]


def mrope_positions(
    token_ids: Sequence[int], images: Sequence[Image], image_pad_id: int
) -> np.ndarray:
    """Positions [3, T] (time, row, column) of a sequence that starts at 0.

    Text advances all three by one a token. An image of R x C tokens stands at its first token's
    position plus row and column, and what follows goes on max(R, C) later. Raises InputError where
    image tokens and images disagree.
    """
    ids = np.asarray(token_ids, dtype=np.int64)
    pads = _image_places(ids, images, image_pad_id)
    positions = np.empty((3, len(ids)), dtype=np.int64)
    token, position, pad = 0, 0, 0
    for image in images:
        count = num_visual_tokens(image)
        start = int(pads[pad])
        if pads[pad + count - 1] != start + count - 1:
            raise InputError(f"the {count} image tokens from token {start} on are not in one run")
        positions[:, token:start] = np.arange(position, position + start - token)
        position += start - token
        columns = image.width // TOKEN_PX
        place = np.arange(count)
        positions[:, start : start + count] = position
        positions[1, start : start + count] += place // columns
        positions[2, start : start + count] += place % columns
        position += max(columns, count // columns)
        token, pad = start + count, pad + count
    positions[:, token:] = np.arange(position, position + len(ids) - token)
    return positions


def _image_places(ids: np.ndarray, images: Sequence[Image], image_pad_id: int) -> np.ndarray:
    pads = np.flatnonzero(ids == image_pad_id)
    expected = sum(map(num_visual_tokens, images))
    if len(pads) != expected:
        raise InputError(
            f"{len(pads)} image tokens, but {len(images)} images that need {expected} of them"
        )
    return pads


def content_rows(
    rows: Sequence[tuple[Sequence[int], Sequence[Image]]], image_pad_id: int
) -> list[np.ndarray]:
    """Rows (tokens, images) as numbers [T] each, equal where tokens and what images show are.

    Raises InputError where image tokens and images disagree.
    """
    numbers: dict[int, int] = {}
    contents = []
    for token_ids, images in rows:
        # Members of a group hold the very same image: its pixels are looked at once.
        for image in images:
            if id(image) not in numbers:
                numbers[id(image)] = int.from_bytes(image_key(image)[:7]) | FIRST_CONTENT
        ids = np.array(token_ids, dtype=np.int64)
        pads = _image_places(ids, images, image_pad_id)
        shown = [numbers[id(image)] for image in images]
        ids[pads] = np.repeat(np.array(shown, np.int64), [num_visual_tokens(i) for i in images])
        contents.append(ids)
    return contents


def num_images_in(token_ids: Sequence[int], images: Sequence[Image], image_pad_id: int) -> int:
    """How many of the first `images` the image tokens of a sequence's beginning stand for."""
    left = list(token_ids).count(image_pad_id)
    for index, image in enumerate(images):
        if left <= 0:
            return index
        left -= num_visual_tokens(image)
    return len(images)


def vision_batches(images: Sequence[Image]) -> Iterator[list[Image]]:
    """Cut images into runs that one vision forward takes."""
    part: list[Image] = []
    tokens = 0
    for image in images:
        if part and tokens + num_visual_tokens(image) > VISUAL_TOKENS_PER_FORWARD:
            yield part
            part = []
            tokens = 0
        part.append(image)
        tokens += num_visual_tokens(image)
    if part:
        yield part
