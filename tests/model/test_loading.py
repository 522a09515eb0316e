"""Checkpoints and devices that cannot be used, each by its one line."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from pyvision_rl.errors import ConfigError, InputError
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.loading import check_device, load_model, never_written, read_vision_rope
from pyvision_rl.model.policy import Policy, PolicyConfig


@pytest.fixture
def folder(tiny_random_checkpoint, tmp_path):
    """A copy of the checkpoint, to be spoilt."""
    return shutil.copytree(tiny_random_checkpoint, tmp_path / "spoilt")


def spoil(folder, part: str, **edits) -> None:
    config = json.loads((folder / "config.json").read_text())
    config[part] |= edits
    (folder / "config.json").write_text(json.dumps(config))


def assert_refused(folder, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Policy.load(PolicyConfig(str(folder), PixelLimits(784, 28224)))
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_weights_that_lack_are_not_made_up(folder):
    path = folder / "model.safetensors"
    weights = load_file(path)
    gone = [name for name in weights if "layers.1.mlp" in name]
    save_file({n: w for n, w in weights.items() if n not in gone}, path, {"format": "pt"})
    assert_refused(folder, rf"{len(gone)} weights are missing, as \S*layers\.1\.mlp\.down_proj")


def test_a_sliding_window_would_see_less_than_the_trajectory(folder):
    kinds = ["full_attention", "sliding_attention", "full_attention"]
    spoil(folder, "text_config", layer_types=kinds, use_sliding_window=True, sliding_window=64)
    assert_refused(folder, "uses sliding windows, only full attention is supported")


def test_a_visual_token_covers_what_images_are_fitted_to(folder):
    spoil(folder, "vision_config", patch_size=16)
    assert_refused(folder, "a visual token covers 32 pixels, must be 28")


def test_ids_that_are_never_written(codec):
    tokenizer = codec.tokenizer
    size = len(tokenizer)
    special = set(tokenizer.all_special_ids) | {codec.image_pad_id}
    special |= {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    expected = sorted(special - {codec.end_of_turn_id})
    assert never_written(codec, size) == tuple(expected)
    # a model may have more ids than its tokenizer has tokens: they are no text
    assert never_written(codec, size + 2) == (*expected, size, size + 1)
    message = f"has token {size - 1}, the model only {size - 1} tokens"
    with pytest.raises(InputError, match=message):
        never_written(codec, size - 1)


def test_a_device_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    check_device("cpu")
    with pytest.raises(ConfigError, match=r"device cuda: no CUDA device here; use cpu$"):
        check_device("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    check_device("cuda")
    check_device("cuda:0")


def test_the_vision_towers_rotary_base_is_the_configurations(tiny_random_checkpoint):
    model = load_model(str(tiny_random_checkpoint), "float32", "cpu")
    config = json.loads((tiny_random_checkpoint / "config.json").read_text())
    theta = config["vision_config"]["rope_parameters"]["rope_theta"]
    frequencies = model.model.visual.rotary_pos_emb.inv_freq
    count = len(frequencies)
    expected = torch.tensor([theta ** (-k / count) for k in range(count)])
    torch.testing.assert_close(frequencies, expected)
    # as a transformers that does not read it leaves them
    frequencies.copy_(torch.tensor([10_000.0 ** (-k / count) for k in range(count)]))
    read_vision_rope(model)
    torch.testing.assert_close(model.model.visual.rotary_pos_emb.inv_freq, expected)
    assert theta != 10_000
