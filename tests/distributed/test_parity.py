"""The same recorded trajectories through the embedded learner and through verl's workers."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from pyvision_rl.distributed.config import DistributedConfig, VerlConfig
from pyvision_rl.model.batch import Sample
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.policy import Policy, PolicyConfig
from pyvision_rl.rl.learner import Learner, LearnerConfig
from pyvision_rl.rl.samples import make_samples
from pyvision_rl.rl.select import SelectConfig, select
from pyvision_rl.runs import GroupRecord
from pyvision_rl.runs.records import read_groups, write_groups
from pyvision_rl.types import Group
from tests.distributed.worker import played_groups, rows_of, training_engine

pytestmark = pytest.mark.usefixtures("verl")

SELECT = SelectConfig(oversample=3, num_groups=2, drop_stops=("no_action",))


@pytest.fixture(scope="module")
def config(tiny_random_checkpoint, tmp_path_factory) -> DistributedConfig:
    return DistributedConfig(
        policy=PolicyConfig(str(tiny_random_checkpoint), PixelLimits(784, 28224)),
        data="unused.json",
        out=str(tmp_path_factory.mktemp("out")),
        group_size=4,
        select=SELECT,
        learner=LearnerConfig(learning_rate=1e-3, weight_decay=0.0, micro_batch_tokens=400),
        engine="verl",
        verl=VerlConfig(
            gpus_per_node=1,
            flash_attention=False,
            overrides=(
                "trainer.device=cpu",
                "actor_rollout_ref.actor.fsdp_config.use_torch_compile=false",
            ),
        ),
    )


@pytest.fixture(scope="module")
def policy(config) -> Policy:
    return Policy.load(config.policy)


@pytest.fixture(scope="module")
def groups(policy) -> tuple[Group, ...]:
    return played_groups(policy)


def test_what_was_recorded_or_sent_by_a_player_is_selected_alike(groups, tmp_path):
    write_groups(tmp_path, 1, "train", [GroupRecord(group) for group in groups])
    recorded = [record.group for record in read_groups(tmp_path, 1, "train")]
    sent = pickle.loads(pickle.dumps(groups))
    assert any(image for group in groups for t in group.trajectories for image in t.context.images)
    samples = make_samples(select(groups, SELECT).kept)
    # by hand: the constant group goes, and the trajectory without an action, which still counts in
    # the baseline 2.3 / 4
    assert [sample.advantage for sample in samples[:3]] == pytest.approx([0.625, -0.575, 0.525])
    assert [sample.advantage for sample in samples[3:]] == [0.25, 0.25, 0.25, -0.75]
    assert make_samples(select(recorded, SELECT).kept) == samples
    assert make_samples(select(sent, SELECT).kept) == samples


@pytest.fixture(scope="module")
def engine(config):
    with training_engine(config) as built:
        yield built


def off_policy(sample: Sample) -> Sample:
    """Sampled with other probabilities, so that ratios are 0.67 and 1.49 and some are clipped."""
    moved = (
        logprob + 0.4 * (-1) ** place * mask
        for place, (logprob, mask) in enumerate(zip(sample.logprobs, sample.loss_mask, strict=True))
    )
    return replace(sample, logprobs=tuple(moved))


@pytest.mark.parametrize("micro_batch_tokens", [400, 4000])
def test_loss_and_gradient_are_those_of_the_embedded_learner(
    config, policy, groups, engine, micro_batch_tokens
):
    from pyvision_rl.distributed.loss import loss_function

    samples = make_samples(select(groups, SELECT).kept)
    assert min(len(sample.images) for sample in samples) == 0
    assert max(len(sample.images) for sample in samples) >= 3
    samples = [off_policy(sample) for sample in samples]
    metrics, ours = embedded_step(samples, config)

    data = rows_of(samples, policy, micro_batch_tokens)
    with engine.train_mode():
        engine.optimizer_zero_grad()
        found = engine.forward_backward_batch(data, loss_function(config.learner.loss))
        theirs = {
            name: parameter.grad.full_tensor()
            for name, parameter in engine.module.named_parameters()
            if parameter.grad is not None
        }
        engine.optimizer_zero_grad()
    tokens = sum(sample.num_loss_tokens for sample in samples)
    sums = {name: metric.aggregate() for name, metric in found["metrics"].items()}
    assert sums["policy"] / tokens == pytest.approx(metrics["loss/policy"], abs=1e-5)
    assert sums["clipped"] == metrics["loss/clip_frac"] * tokens > 0
    assert sums["entropy"] / tokens == pytest.approx(metrics["loss/entropy"], abs=1e-5)
    assert theirs.keys() == ours.keys()
    worst = max(float((theirs[name] - ours[name]).abs().max()) for name in ours)
    assert worst < 1e-5
    assert max(float(gradient.abs().max()) for gradient in ours.values()) > 1e-3


@pytest.mark.parametrize("chosen", [range(7), [4], [4, 4]], ids=["all", "one", "equally long"])
def test_tokens_have_the_probability_with_which_they_were_sampled(
    config, policy, groups, engine, chosen
):
    from pyvision_rl.distributed.loss import loss_function

    kept = make_samples(select(groups, SELECT).kept)
    samples = [kept[place] for place in chosen]
    assert max(len(sample.images) for sample in samples) >= 2
    data = rows_of(samples, policy, max_tokens=4000)
    with engine.train_mode():
        engine.optimizer_zero_grad()
        found = engine.forward_backward_batch(data, loss_function(config.learner.loss))
        engine.optimizer_zero_grad()
    assert found["metrics"]["probs_diff_max"].aggregate() < 1e-6


def test_log_probs_keep_their_digits_where_logits_are_large():
    from verl.utils.torch_functional import logprobs_from_logits_v2

    from pyvision_rl.distributed.policy_engine import restricted

    torch.manual_seed(0)
    logits = 40 + 5 * torch.randn(200, 30)
    wanted = logits.double().index_fill(-1, torch.tensor([3]), -torch.inf).log_softmax(-1)
    likeliest = wanted.argmax(-1)
    leaf = logits.clone().requires_grad_()
    found = logprobs_from_logits_v2(restricted(leaf * 1, torch.tensor([3])), likeliest)
    error = (found.exp() - wanted.amax(-1).exp()).abs().max()
    assert error < 6e-7
    found.sum().backward()
    ours = torch.nn.functional.one_hot(likeliest, 30) - wanted.exp()
    assert leaf.grad is not None
    assert torch.allclose(leaf.grad.double(), ours, atol=1e-6)


def embedded_step(
    samples: Sequence[Sample], config: DistributedConfig
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """The embedded learner's metrics, and the gradient of each trained weight, not clipped."""
    policy = Policy.load(config.policy)
    learner = Learner(policy, replace(config.learner, grad_clip=1e9), 1.0)
    gradients: dict[str, torch.Tensor] = {}

    def keep(*_: object) -> None:
        for name, parameter in policy.model.named_parameters():
            if parameter.grad is not None:
                gradients[name] = parameter.grad.clone()

    learner.optimizer.register_step_pre_hook(keep)
    return learner.update(samples, seed=0), gradients
