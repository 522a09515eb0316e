import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from pyvision_rl.errors import InputError
from pyvision_rl.model import inputs
from pyvision_rl.model.inputs import (
    image_key,
    make_patches,
    mrope_positions,
    num_images_in,
    vision_batches,
)
from pyvision_rl.model.tiny import tiny_config, train_tokenizer
from tests.model.play import picture

PAD = 9


def test_positions_by_hand():
    # Two texts, an image of 2 x 3 tokens at position 2, and text after the longer side: 2 + 3.
    positions = mrope_positions([1, 1, *[PAD] * 6, 1, 1], [picture(0, 84, 56)], PAD)
    assert positions.tolist() == [
        [0, 1, 2, 2, 2, 2, 2, 2, 5, 6],
        [0, 1, 2, 2, 2, 3, 3, 3, 5, 6],
        [0, 1, 2, 3, 4, 2, 3, 4, 5, 6],
    ]


@pytest.fixture(scope="module")
def model():
    return Qwen2_5_VLForConditionalGeneration(tiny_config(train_tokenizer(["a b"], 300))).model


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6)), max_size=4),
    st.integers(1, 5),
)
def test_positions_equal_transformers(model, parts, tail):
    pad = model.config.image_token_id
    ids, images = [], []
    for text, columns, rows in parts:
        ids += [1] * text + [pad] * (rows * columns)
        images.append(picture(0, 28 * columns, 28 * rows))
    ids += [1] * tail
    tokens = torch.tensor([ids])
    grids = torch.tensor([[1, i.height // 14, i.width // 14] for i in images]).view(-1, 3)
    theirs, _ = model.get_rope_index(tokens, (tokens == pad).int(), image_grid_thw=grids)
    assert mrope_positions(ids, images, pad).tolist() == theirs[:, 0].tolist()


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1, PAD, 1], "1 image tokens, but 1 images that need 2 of them"),
        ([1, PAD, PAD, PAD], "3 image tokens, but 1 images that need 2 of them"),
        ([PAD, 1, PAD], "the 2 image tokens from token 0 on are not in one run"),
    ],
)
def test_a_mismatch_is_named(ids, message):
    with pytest.raises(InputError, match=message):
        mrope_positions(ids, [picture(0, 56, 28)], PAD)


def test_images_in_a_beginning():
    images = [picture(0, 56, 28), picture(1, 28, 28)]
    ids = [1, PAD, PAD, 1, PAD, 1]
    assert [num_images_in(ids[:stop], images, PAD) for stop in (1, 3, 4, 5, 6)] == [0, 1, 1, 2, 2]


def test_keys_tell_images_apart():
    image = picture(1)
    assert image_key(image) == image_key(image.copy())
    assert image_key(image) != image_key(picture(2))
    # The same bytes in another shape.
    assert image_key(picture(1, 28, 56)) != image_key(picture(1, 56, 28))


def test_patches_are_never_resized():
    processor = Qwen2VLImageProcessorPil(min_pixels=3136, max_pixels=4000)
    pixels, grids = make_patches(processor, [picture(0, 140, 84)])
    assert grids.tolist() == [[1, 6, 10]]
    assert pixels.shape == (60, 1176)
    with pytest.raises(InputError, match="image of 85 x 84: sides must be multiples of 28"):
        make_patches(processor, [picture(0, 85, 84)])


def test_vision_batches(monkeypatch):
    monkeypatch.setattr(inputs, "VISUAL_TOKENS_PER_FORWARD", 10)
    sizes = [(84, 84), (28, 28), (112, 112), (28, 28), (84, 84)]
    images = [picture(seed, *size) for seed, size in enumerate(sizes)]
    # 9 + 1 tokens fill one, 16 are too many for any and stand alone, 1 + 9 fill one again.
    parts = list(vision_batches(images))
    assert [len(part) for part in parts] == [2, 1, 2]
    assert [image for part in parts for image in part] == images
