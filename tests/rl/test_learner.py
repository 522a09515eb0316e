import math
import weakref
from dataclasses import replace
from random import Random

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import Linear
from PIL import Image
from transformers import Qwen2_5_VLForConditionalGeneration

from pyvision_rl.errors import ConfigError, InputError
from pyvision_rl.model.batch import Sample
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.lora import ADAPTER, LoRAConfig, merged_state
from pyvision_rl.model.policy import Policy, PolicyConfig
from pyvision_rl.rl.learner import Learner, LearnerConfig

CONFIG = LearnerConfig(learning_rate=1e-3, num_minibatches=2, weight_decay=0.0)


@pytest.fixture
def policy(tiny_random_checkpoint) -> Policy:
    config = PolicyConfig(str(tiny_random_checkpoint), PixelLimits(784, 28224))
    return Policy.load(config)


def samples_of(policy: Policy, count: int = 8) -> list[Sample]:
    """Conversations with an image, sampled tokens of random words, and mixed advantages."""
    rng = Random(0)
    words = policy.codec.encode_completion("I see 0 1 2 3 4 5 6 7 8 9 find the red tag.")[0][:-1]
    samples = []
    for index in range(count):
        prompt = policy.codec.prompt("find", [Image.new("RGB", (56, 56), (20 * index, 90, 200))])
        written = tuple(rng.choices(words, k=3 + index))
        zeros = [0.0] * len(prompt.token_ids)
        samples.append(
            Sample(
                token_ids=(*prompt.token_ids, *written),
                loss_mask=(*[0] * len(zeros), *[1] * len(written)),
                logprobs=(*zeros, *[-6.0] * len(written)),
                advantage=1.0 if index % 2 else -0.5,
                images=prompt.images,
            )
        )
    return samples


def weights(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in policy.model.named_parameters()}


def test_one_step_changes_the_language_model_and_leaves_frozen_vision(policy):
    before = weights(policy)
    metrics = Learner(policy, CONFIG, 1.0).update(samples_of(policy), seed=0)
    changed = {name for name, p in weights(policy).items() if not torch.equal(p, before[name])}
    assert changed
    assert not any("visual" in name for name in changed)
    assert metrics["loss/num_tokens"] == sum(3 + index for index in range(8))
    assert metrics["learner/grad_norm"] > 0
    assert metrics["learner/skipped_updates"] == 0


def test_the_numbers_of_a_step_by_hand(policy):
    """Ratios 0.5, 1.2, 1.5 and 2 of learner to sampler, at the temperature of the rollouts."""
    prompt = policy.codec.prompt("find", [])
    ids = (*prompt.token_ids, *policy.codec.encode_completion("1 2 3 4")[0][-5:-1])
    mask = (*[0] * (len(ids) - 4), 1, 1, 1, 1)
    with torch.no_grad():
        logprobs, entropy = policy.token_logprobs(
            torch.tensor([ids]), torch.ones(1, len(ids)).long(), torch.tensor([mask]), (), 0.5
        )
    ratios = torch.tensor([0.5, 1.2, 1.5, 2.0])
    sampled = (logprobs[0, -4:] - ratios.log()).tolist()
    sample = Sample(ids, mask, (*[0.0] * (len(ids) - 4), *sampled), 1.0, ())
    # a second one that was sampled exactly so, of advantage 0, in a forward of its own
    same = Sample(ids, mask, tuple(logprobs[0].tolist()), 0.0, ())
    config = LearnerConfig(micro_batch_tokens=1)
    metrics = Learner(policy, config, temperature=0.5).update([sample, same], seed=0)
    # -(0.5 + 1.2 + 1.28 + 1.28) over 8 tokens; two of 8 are held
    assert metrics["loss/policy"] == pytest.approx(-4.26 / 8, abs=1e-5)
    assert metrics["loss/clip_frac"] == 0.25
    # sum of r - 1 - ln r: 5.2 - 4 - ln 1.8
    assert metrics["loss/sampler_kl"] == pytest.approx((1.2 - math.log(1.8)) / 8, abs=1e-5)
    assert metrics["loss/entropy"] == pytest.approx(float(entropy.sum()) / 4, rel=1e-5)
    assert policy.version == 1


def test_a_gradient_is_cut_to_its_largest_norm_and_told_uncut(policy):
    learner = Learner(policy, LearnerConfig(grad_clip=1e-3), 1.0)
    metrics = learner.update(samples_of(policy, 2), seed=0)
    cut = sum(float((p.grad**2).sum()) for p in learner.parameters if p.grad is not None) ** 0.5
    assert cut == pytest.approx(1e-3, rel=1e-3)
    assert metrics["learner/grad_norm"] > 2e-3


def test_the_seed_cuts_the_mini_batches(policy):
    samples = samples_of(policy, 5)
    learner = Learner(policy, LearnerConfig(learning_rate=1e-12, num_minibatches=2), 1.0)
    norms = [learner.update(samples, seed)["learner/grad_norm"] for seed in (0, 1, 2, 0)]
    assert norms[3] == pytest.approx(norms[0], rel=1e-5)
    assert max(norms) > min(norms) * 1.001
    # three samples and two, each time
    steps = {int(state["step"]) for state in learner.optimizer.state.values()}
    assert steps == {2 * len(norms)}


def test_the_optimizer_is_the_configured_one(policy):
    config = LearnerConfig(learning_rate=3e-5, beta2=0.95, weight_decay=0.2)
    (group,) = Learner(policy, config, 1.0).optimizer.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (3e-5, (0.9, 0.95), 0.2)


def test_the_policy_moves_towards_what_was_good(policy):
    samples = samples_of(policy)
    good = samples[7]
    ids = torch.tensor([good.token_ids])
    mask = torch.tensor([good.loss_mask])

    def likelihood() -> float:
        with torch.no_grad():
            logprobs, _ = policy.token_logprobs(ids, torch.ones_like(ids), mask, good.images)
        return float(logprobs.sum())

    before = likelihood()
    Learner(policy, CONFIG, 1.0).update([good], seed=0)
    assert likelihood() > before


@pytest.mark.parametrize("micro_batch_tokens", [1, 100, 400])
def test_loss_and_weights_do_not_depend_on_the_micro_batch(
    tiny_random_checkpoint, micro_batch_tokens
):
    config = PolicyConfig(str(tiny_random_checkpoint), PixelLimits(784, 28224))
    results = []
    for tokens in (10**6, micro_batch_tokens):
        policy = Policy.load(config)
        learner = Learner(policy, LearnerConfig(learning_rate=1e-4, micro_batch_tokens=tokens), 1.0)
        metrics = learner.update(samples_of(policy), seed=0)
        gradients = [p.grad.clone() for p in learner.parameters if p.grad is not None]
        results.append((metrics["loss/policy"], metrics["learner/grad_norm"], gradients))
    whole, cut = results
    assert cut[0] == pytest.approx(whole[0], abs=1e-6)
    assert cut[1] == pytest.approx(whole[1], rel=1e-5)
    for one, other in zip(whole[2], cut[2], strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_saved_and_loaded_goes_on_bit_by_bit(policy, tiny_random_checkpoint, tmp_path):
    samples = samples_of(policy)
    learner = Learner(policy, CONFIG, 1.0)
    learner.update(samples, seed=1)
    learner.save(tmp_path)
    learner.update(samples, seed=2)

    other = Policy.load(policy.config)
    resumed = Learner(other, CONFIG, 1.0)
    resumed.load(tmp_path)
    resumed.update(samples, seed=2)
    for name, value in weights(other).items():
        assert torch.equal(value, weights(policy)[name]), name


def test_a_gradient_that_is_not_finite_is_skipped_and_counted(policy):
    samples = samples_of(policy, 2)
    broken = Sample(
        samples[1].token_ids,
        samples[1].loss_mask,
        samples[1].logprobs,
        float("nan"),
        samples[1].images,
    )
    before = weights(policy)
    metrics = Learner(policy, LearnerConfig(), 1.0).update([samples[0], broken], seed=0)
    assert metrics["learner/skipped_updates"] == 1
    assert all(torch.equal(p, before[name]) for name, p in weights(policy).items())


def test_impossible_settings_are_refused():
    for change in (lambda: LearnerConfig(weight_decay=-0.1), lambda: LearnerConfig(beta2=1.0)):
        with pytest.raises(ConfigError, match="need weight_decay >= 0 and 0 <= beta2 < 1"):
            change()
    with pytest.raises(ConfigError, match="num_minibatches"):
        LearnerConfig(num_minibatches=0)
    with pytest.raises(ConfigError, match="feature_cache_mb: -1"):
        PolicyConfig("tiny", feature_cache_mb=-1)


ADAPTED = LearnerConfig(learning_rate=1e-2, weight_decay=0.0)


def adapted(policy: Policy, rank: int = 4, **changes) -> Policy:
    """The same checkpoint with adapters."""
    return Policy.load(replace(policy.config, lora=LoRAConfig(rank, alpha=8), **changes))


def logprobs_of(policy: Policy, samples: list[Sample]) -> torch.Tensor:
    with torch.no_grad():
        rows = [
            policy.token_logprobs(
                torch.tensor([sample.token_ids]),
                torch.ones(1, len(sample.token_ids), dtype=torch.long),
                torch.tensor([sample.loss_mask]),
                sample.images,
            )[0][0, -3:]
            for sample in samples
        ]
    return torch.stack(rows)


@pytest.mark.parametrize("freeze_vision", [True, False])
def test_a_lora_step_changes_adapters_only(policy, freeze_vision):
    samples = samples_of(policy)
    lora = adapted(policy, freeze_vision=freeze_vision)
    # adapters that have learned nothing change nothing
    assert torch.equal(logprobs_of(lora, samples), logprobs_of(policy, samples))
    before = weights(lora)
    Learner(lora, ADAPTED, 1.0).update(samples, seed=0)
    changed = {name for name, p in weights(lora).items() if not torch.equal(p, before[name])}
    assert changed
    assert all(".lora_" in name for name in changed)
    assert any("visual" in name for name in changed) is not freeze_vision


def test_an_exported_checkpoint_is_base_and_adapters_in_one(policy, tmp_path):
    samples = samples_of(policy)
    lora = adapted(policy, freeze_vision=False)
    Learner(lora, ADAPTED, 1.0).update(samples, seed=0)
    before = weights(lora)
    lora.write(tmp_path)
    assert all(torch.equal(p, before[name]) for name, p in weights(lora).items())
    # whoever may read one file may read all of them
    assert len({p.stat().st_mode for p in tmp_path.rglob("*") if p.is_file()}) == 1

    merged = Policy.load(replace(policy.config, model=str(tmp_path)))
    assert not any("lora" in name for name in weights(merged))
    learned = logprobs_of(lora, samples)
    assert (learned - logprobs_of(policy, samples)).abs().max() > 0.01
    torch.testing.assert_close(logprobs_of(merged, samples), learned, atol=1e-4, rtol=1e-4)

    base = Qwen2_5_VLForConditionalGeneration.from_pretrained(policy.config.model)
    theirs = PeftModel.from_pretrained(base, tmp_path / ADAPTER)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        expected = lora.model(input_ids=ids).logits
        torch.testing.assert_close(theirs(input_ids=ids).logits, expected)


def test_a_merge_holds_one_layer_at_a_time(policy, monkeypatch):
    made: list[weakref.ref[torch.Tensor]] = []
    counts = []
    plain = Linear.get_delta_weight

    def watched(layer: Linear, name: str) -> torch.Tensor:
        delta = plain(layer, name)
        made.append(weakref.ref(delta))
        counts.append(sum(reference() is not None for reference in made))
        return delta

    monkeypatch.setattr(Linear, "get_delta_weight", watched)
    merged_state(adapted(policy).model)
    assert len(counts) == 3 * 7  # linear layers of the language model
    assert max(counts) <= 2  # the one before goes when its successor is there


def test_lora_goes_on_bit_by_bit(policy, tmp_path):
    samples = samples_of(policy)
    lora = adapted(policy)
    learner = Learner(lora, ADAPTED, 1.0)
    learner.update(samples, seed=1)
    learner.save(tmp_path)
    learner.update(samples, seed=2)

    other = adapted(policy)
    resumed = Learner(other, ADAPTED, 1.0)
    resumed.load(tmp_path)
    resumed.update(samples, seed=2)
    assert all(torch.equal(p, weights(lora)[name]) for name, p in weights(other).items())
    with pytest.raises(InputError, match="of another rank"):
        Learner(adapted(policy, rank=2), ADAPTED, 1.0).load(tmp_path)


def test_checkpointed_gradients_are_the_same(policy):
    samples = samples_of(policy)
    found = []
    for is_on in (False, True):
        other = Policy.load(
            replace(policy.config, gradient_checkpointing=is_on, freeze_vision=False)
        )
        learner = Learner(other, CONFIG, 1.0)
        metrics = learner.update(samples, seed=0)
        found.append((metrics["learner/grad_norm"], weights(other)))
        assert not any(module.training for module in other.model.modules())
    assert found[0][0] == found[1][0]
    assert all(torch.equal(p, found[1][1][name]) for name, p in found[0][1].items())


def test_checkpointing_computes_layers_again(policy):
    calls = []
    for is_on in (False, True):
        other = Policy.load(replace(policy.config, gradient_checkpointing=is_on))
        counted: list[int] = []
        layer = other.model.model.language_model.layers[0]
        layer.self_attn.register_forward_hook(lambda *_, counted=counted: counted.append(1))
        Learner(other, LearnerConfig(), 1.0).update(samples_of(policy), seed=0)
        calls.append(len(counted))
    assert calls == [1, 2]


def test_bfloat16_keeps_small_updates(policy, tmp_path):
    # 1e-6 is far below what bfloat16 can add to a weight of 0.05: only the masters can sum it up
    samples = samples_of(policy)
    small = Policy.load(replace(policy.config, dtype="bfloat16"))
    learner = Learner(small, LearnerConfig(learning_rate=1e-6, weight_decay=0.0), 1.0)
    before = [p.detach().clone() for p in learner.parameters]
    assert all(p.dtype == torch.bfloat16 for p in small.model.parameters())
    learner.update(samples, seed=0)
    moved = [
        float((p - old).detach().abs().max())
        for p, old in zip(learner.parameters, before, strict=True)
    ]
    assert max(moved) == pytest.approx(1e-6, rel=0.1)
    for rounded, (_, master) in zip(
        (p for p in small.model.parameters() if p.requires_grad), learner.masters.named, strict=True
    ):
        assert torch.equal(rounded, master.bfloat16())
    learner.save(tmp_path)
    other = Learner(Policy.load(small.config), learner.config, 1.0)
    other.load(tmp_path)
    for saved, loaded in zip(learner.parameters, other.parameters, strict=True):
        assert torch.equal(saved, loaded)


def test_bfloat16_loses_nothing_of_many_micro_batches(policy):
    small = Policy.load(replace(policy.config, dtype="bfloat16"))
    sample = samples_of(small)[7]
    found = []
    for count in (1, 16):
        config = LearnerConfig(learning_rate=1e-9, micro_batch_tokens=1)
        learner = Learner(small, config, 1.0)
        metrics = learner.update([sample] * count, seed=0)
        gradients = [p.grad.clone() for p in learner.parameters if p.grad is not None]
        found.append((metrics["learner/grad_norm"], gradients))
    (one_norm, one), (many_norm, many) = found
    assert many_norm == pytest.approx(one_norm, rel=1e-5)
    for single, summed in zip(one, many, strict=True):
        torch.testing.assert_close(summed, single, rtol=1e-4, atol=1e-8)
