"""Samples as rows of verl's queue."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from pyvision_rl.distributed.rows import make_rows
from pyvision_rl.errors import InputError
from pyvision_rl.model.batch import Sample

PAD = 9
IMAGE = Image.new("RGB", (56, 28))
"""Two visual tokens side by side."""


def sample(*written: int, advantage: float = 1.0) -> Sample:
    """A prompt of 1, the image and 2; then what was written, an observation 7, and a last 8."""
    ids = (1, PAD, PAD, 2, *written, 7, 8)
    mask = (0, 0, 0, 0, *[1] * len(written), 0, 1)
    return Sample(ids, mask, tuple(-0.5 * m for m in mask), advantage, (IMAGE,))


def test_a_row_is_prompt_and_response_with_the_positions_of_its_images():
    [row] = make_rows([sample(3, 4)], PAD, 1, seed=0)
    fields = row.tensors
    assert row.fields.keys() == {*fields, "multi_modal_inputs"}
    assert fields["prompts"].tolist() == [1, PAD, PAD, 2]
    assert fields["responses"].tolist() == [3, 4, 7, 8]
    assert fields["response_mask"].tolist() == [1, 1, 0, 1]
    assert fields["rollout_log_probs"].tolist() == [-0.5, -0.5, 0, -0.5]
    # text counts on; the image stands at 1 with columns 1 and 2, and what follows goes on at 3
    assert fields["token_positions"].T.tolist() == [
        [0, 1, 2, 3, 4, 5, 6, 7],
        [0, 1, 1, 3, 4, 5, 6, 7],
        [0, 1, 1, 3, 4, 5, 6, 7],
        [0, 1, 2, 3, 4, 5, 6, 7],
    ]
    assert float(fields["advantages"]) == 1.0
    assert row.tags == {"prompt_len": 4, "response_len": 4, "seq_len": 8}


def test_rows_are_filled_up_with_copies_that_no_loss_counts():
    samples = [sample(3, 4, 5), sample(3), sample(3, 4)]
    rows = make_rows(samples, PAD, 4, seed=1)
    assert len(rows) == 4
    assert len({row.key for row in rows}) == 4
    counted = [int(row.tensors["response_mask"].sum()) for row in rows]
    assert sorted(counted[:3]) == [2, 3, 4]
    assert counted[3] == 0
    # the shortest one, its images still in place
    assert rows[3].tensors["input_ids"].tolist() == list(sample(3).token_ids)
    assert rows[3].tensors["prompts"].tolist() == [1, PAD, PAD, 2]
    assert len(make_rows(samples, PAD, 3, seed=1)) == 3


def test_the_order_depends_on_the_seed_alone():
    samples = [sample(*range(10, 11 + index)) for index in range(6)]

    def lengths(seed: int) -> list[int]:
        return [len(row.tensors["input_ids"]) for row in make_rows(samples, PAD, 1, seed)]

    assert lengths(3) == lengths(3)
    assert lengths(3) != lengths(4)
    assert sorted(lengths(3)) == [7, 8, 9, 10, 11, 12]


def test_images_that_do_not_fit_the_tokens_are_refused():
    whole = sample(3)
    for images in ((), (IMAGE, IMAGE), (Image.new("RGB", (84, 28)),)):
        broken = Sample(whole.token_ids, whole.loss_mask, whole.logprobs, 1.0, images)
        with pytest.raises(InputError, match="2 image tokens, but"):
            make_rows([whole, broken], PAD, 1, seed=0)


def test_a_sample_without_a_sampled_token_is_refused():
    nothing = Sample((1, 2), (0, 0), (0.0, 0.0), 1.0, ())
    with pytest.raises(InputError, match="none of them was sampled"):
        make_rows([nothing], PAD, 1, seed=0)
    assert torch.is_tensor(make_rows([sample(3)], PAD, 1, seed=0)[0].tensors["input_ids"])
