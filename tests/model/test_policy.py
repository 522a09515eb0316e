import json
import shutil

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoTokenizer, GenerationConfig

from pyvision_rl.errors import ConfigError, InputError
from pyvision_rl.model import policy as policy_module
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.inputs import make_patches
from pyvision_rl.model.lora import LoRAConfig
from pyvision_rl.model.policy import Policy, PolicyConfig
from tests.model.play import picture

PIXELS = PixelLimits(784, 28224)


def load(folder, **options):
    return Policy.load(PolicyConfig(str(folder), PIXELS, **options))


@pytest.fixture(scope="module")
def policy(tiny_random_checkpoint):
    torch.set_num_threads(1)
    return load(tiny_random_checkpoint)


def batch(policy, *conversations):
    """Rows of (text, images): tokens, attention mask, loss mask on all but the first, images."""
    prompts = [policy.codec.prompt(text, images) for text, images in conversations]
    length = max(len(prompt.token_ids) for prompt in prompts)
    ids = torch.full((len(prompts), length), policy.pad_id)
    attention = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt.token_ids)] = torch.tensor(prompt.token_ids)
        attention[row, : len(prompt.token_ids)] = 1
    banned = torch.isin(ids, torch.tensor(policy.banned_ids))
    loss = attention * ~banned
    return ids, attention, loss, [image for prompt in prompts for image in prompt.images]


@torch.no_grad()
def test_logprobs_equal_the_plain_model(policy):
    conversations = [("find the red tag", [picture(1), picture(2, 56, 84)]), ("tag 1 2", [])]
    ids, attention, loss, images = batch(policy, *conversations)
    logprobs, entropy = policy.token_logprobs(ids, attention, loss, images, temperature=0.7)
    pixels, grids = make_patches(policy.vision.processor, images)
    logits = policy.model(
        input_ids=ids,
        attention_mask=attention,
        pixel_values=pixels,
        image_grid_thw=grids,
        mm_token_type_ids=(ids == policy.codec.image_pad_id).int(),
    ).logits
    logits[..., list(policy.banned_ids)] = -torch.inf
    expected = (logits / 0.7).log_softmax(-1)
    picked = expected[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
    on = loss[:, 1:].bool()
    assert on.sum() > 20
    assert (logprobs[:, 1:] - picked)[on].abs().max() < 1e-5
    terms = expected.exp() * expected
    plain = -terms.nan_to_num().sum(-1)[:, :-1]
    assert (entropy[:, 1:] - plain)[on].abs().max() < 1e-5
    assert not logprobs[loss == 0].any()
    assert not entropy[loss == 0].any()


def test_the_head_in_chunks_gives_the_same_gradients(policy, monkeypatch):
    rows = batch(policy, ("find the red tag", [picture(1)]))

    def gradients():
        policy.model.zero_grad()
        policy.token_logprobs(*rows)[0].sum().backward()
        return {n: p.grad.clone() for n, p in policy.model.named_parameters() if p.grad is not None}

    whole = gradients()
    monkeypatch.setattr(policy_module, "LOGITS_PER_CHUNK", 3 * policy.vocabulary_size)
    chunked = gradients()
    policy.model.zero_grad()
    assert whole.keys() == chunked.keys()
    assert not [name for name in whole if "visual" in name]
    for name, gradient in whole.items():
        assert torch.allclose(gradient, chunked[name], atol=1e-5)


def test_gradients_reach_the_vision_tower_unless_frozen(tiny_random_checkpoint):
    policy = load(tiny_random_checkpoint, freeze_vision=False)
    # The same image in two rows is encoded once, and both rows reach it.
    rows = batch(policy, ("red", [picture(1)]), ("red", [picture(1)]))
    policy.token_logprobs(*rows)[0][0].sum().backward()
    one = policy.model.model.visual.merger.mlp[0].weight.grad.clone()
    assert one.abs().max() > 0
    policy.model.zero_grad()
    policy.token_logprobs(*rows)[0].sum().backward()
    assert torch.allclose(policy.model.model.visual.merger.mlp[0].weight.grad, 2 * one, rtol=1e-3)


def test_an_image_is_encoded_once_per_weights(tiny_random_checkpoint, monkeypatch):
    for frozen, expected in ((True, 1), (False, 2)):
        policy = load(tiny_random_checkpoint, freeze_vision=frozen)
        calls = []
        encode = policy.vision._encode_batch
        monkeypatch.setattr(
            policy.vision,
            "_encode_batch",
            lambda images, e=encode, c=calls: c.append(images) or e(images),
        )
        with torch.no_grad():
            first = policy.vision.features([picture(1), picture(1)])
            again = policy.vision.features([picture(1)])
            assert torch.equal(first[0], again[0])
            assert first[0].shape == (9, 128)
            policy.weights_changed()
            policy.vision.features([picture(1)])
        assert len(calls) == expected
        assert len(calls[0]) == 1


def test_the_feature_cache_is_bounded(tiny_random_checkpoint):
    policy = load(tiny_random_checkpoint, feature_cache_mb=0)
    assert len(policy.vision.features([picture(1), picture(2)])) == 2


def test_features_do_not_depend_on_their_neighbours(policy):
    one, other = picture(11, 56, 84), picture(12, 112, 28)
    both = [f.clone() for f in policy.vision.features([one, other])]
    policy.vision.forget()
    alone = policy.vision.features([other])[0]
    assert torch.allclose(both[1], alone, atol=1e-5)


def test_banned_ids(policy):
    vocabulary = policy.codec.tokenizer.get_vocab()
    banned = {token for token, index in vocabulary.items() if index in policy.banned_ids}
    assert {"<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"} <= banned
    assert {"<|vision_pad|>", "<|im_start|>", "<|endoftext|>"} <= banned
    assert "<|im_end|>" not in banned
    assert len(banned) == 7


@pytest.mark.parametrize("given", [[], [picture(1), picture(2)], [picture(1, 84, 112)]])
def test_a_mismatch_of_images_raises(policy, given):
    ids, attention, loss, _ = batch(policy, ("red", [picture(1)]))
    with pytest.raises(InputError, match="9 image tokens, but"):
        policy.token_logprobs(ids, attention, loss, given)


def test_tokens_that_cannot_be_written_are_no_targets(policy):
    ids, attention, loss, images = batch(policy, ("red", [picture(1)]))
    with pytest.raises(InputError, match="loss_mask is 1 on the first token"):
        policy.token_logprobs(ids, attention, attention, images)
    loss = (ids == policy.codec.image_pad_id).int()
    with pytest.raises(InputError, match=f"loss_mask is 1 on token {policy.codec.image_pad_id},"):
        policy.token_logprobs(ids, attention, loss, images)


@torch.no_grad()
def test_save_and_load_round_trip(policy, tmp_path):
    folder = tmp_path / "deep" / "checkpoint"
    policy.save(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]
    rows = batch(policy, ("find the red tag", [picture(1)]))
    again = load(folder)
    assert torch.equal(policy.token_logprobs(*rows)[0], again.token_logprobs(*rows)[0])
    plain = AutoModelForImageTextToText.from_pretrained(folder)
    for name, weight in policy.model.state_dict().items():
        assert torch.equal(plain.state_dict()[name], weight)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer is not None
    assert tokenizer.get_vocab() == policy.codec.tokenizer.get_vocab()
    assert GenerationConfig.from_pretrained(folder).eos_token_id == policy.codec.end_of_turn_id
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    assert processor["image_processor_type"] == "Qwen2VLImageProcessor"
    assert processor["size"] == {"shortest_edge": 784, "longest_edge": 28224}
    with pytest.raises(InputError, match="exists already; nothing was overwritten"):
        policy.save(folder)


def test_a_failed_save_leaves_nothing(policy, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(policy.codec.tokenizer, "save_pretrained", fail)
    with pytest.raises(OSError, match="disk full"):
        policy.save(tmp_path / "checkpoint")
    assert not list(tmp_path.iterdir())


@torch.no_grad()
def test_load_state_replaces_weights_in_place(tiny_random_checkpoint):
    policy = load(tiny_random_checkpoint)
    rows = batch(policy, ("find the red tag", [picture(1)]))
    before = policy.token_logprobs(*rows)[0]
    state = {name: weight * 0.5 for name, weight in policy.model.state_dict().items()}
    policy.load_state(state)
    assert policy.version == 1
    after = policy.token_logprobs(*rows)[0]
    assert not torch.allclose(before, after)
    # with other eyes alone the features that were kept are stale
    state |= {name: 2 * weight for name, weight in state.items() if "visual" in name}
    policy.load_state(state)
    assert not torch.equal(after, policy.token_logprobs(*rows)[0])


@pytest.mark.parametrize("rank", [0, 2])
def test_weights_that_were_read_are_told_of(tiny_random_checkpoint, tmp_path, rank):
    policy = load(tiny_random_checkpoint, lora=LoRAConfig(rank))
    policy.write(tmp_path)
    policy.read(tmp_path)
    assert policy.version == 1


def test_temperature_0_counts_as_1_and_the_entropy_is_detached(policy):
    rows = batch(policy, ("find the red tag", []))
    logprobs, entropy = policy.token_logprobs(*rows, temperature=0.0)
    assert torch.equal(logprobs, policy.token_logprobs(*rows, temperature=1.0)[0])
    assert logprobs.requires_grad
    assert not entropy.requires_grad


def broken(tiny_random_checkpoint, tmp_path, **edits):
    folder = tmp_path / "broken"
    shutil.copytree(tiny_random_checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **edits}))
    return folder


def assert_one_line(folder, *needles, **options):
    with pytest.raises(InputError) as caught:
        load(folder, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert all(needle in message for needle in needles), message


def test_a_missing_folder(tmp_path):
    assert_one_line(tmp_path / "nowhere", "nowhere", "no such folder")


def test_a_slip_beside_a_local_folder_is_not_looked_up_in_the_hub(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert_one_line("runs/nothing", "runs/nothing", "no such folder")


def test_a_folder_without_a_model(tmp_path):
    assert_one_line(tmp_path, str(tmp_path), "no config.json that loads")


def test_another_architecture(tiny_random_checkpoint, tmp_path):
    folder = broken(tiny_random_checkpoint, tmp_path, model_type="qwen2")
    assert_one_line(folder, "is a qwen2, must be a qwen2_5_vl")


def test_a_folder_without_a_tokenizer(tiny_random_checkpoint, tmp_path):
    folder = broken(tiny_random_checkpoint, tmp_path)
    for path in folder.glob("*token*"):
        path.unlink()
    assert_one_line(folder, str(folder), "tokenizer")


def test_cut_weights(tiny_random_checkpoint, tmp_path):
    folder = broken(tiny_random_checkpoint, tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert_one_line(folder, str(folder), "no weights that load")
    weights.unlink()
    assert_one_line(folder, str(folder), "no weights that load")


@pytest.mark.parametrize("device", ["tpux", "meta", "mps"])
def test_an_unknown_device(tiny_random_checkpoint, device):
    with pytest.raises(ConfigError, match=f"device {device}: use cpu, cuda or cuda:N"):
        load(tiny_random_checkpoint, device=device)


def test_a_device_that_is_not_there(tiny_random_checkpoint, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="device cuda:2: there are 2 here"):
        load(tiny_random_checkpoint, device="cuda:2")
