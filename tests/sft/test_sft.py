import json

import pytest
import torch
from PIL import Image

from pyvision_rl.data.traces import read_traces
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.policy import Policy, PolicyConfig
from pyvision_rl.rl.samples import make_sample
from pyvision_rl.sft.data import TraceSamples, encode_trace, epoch_batches, num_bytes
from pyvision_rl.sft.traces import TraceSource, write_traces
from pyvision_rl.sft.train import SFTTrainConfig, num_steps, rate_at, train
from pyvision_rl.types import Completion, StopReason, Task, Trajectory, Turn
from tests.sft.traces import trace_file


@pytest.fixture
def played(codec, image_file) -> Trajectory:
    """A look and an answer, tokens as an episode has them."""
    task = Task("t", "which?", "7", images=(image_file,))
    shown = Image.new("RGB", (56, 84), (200, 10, 10))
    prompt = codec.prompt("which?", [Image.open(image_file)])
    first_ids, _ = codec.encode_completion("<code>look</code>")
    first = Completion(first_ids, (0.0,) * len(first_ids), codec.decode(first_ids), "stop")
    last_ids, _ = codec.encode_completion("I see 7.")
    last = Completion(last_ids, (0.0,) * len(last_ids), codec.decode(last_ids), "stop")
    seen = codec.observation(first, "<|im_end|> out", [shown], first=1, ok=True)
    turns = (Turn(first, seen, "look"), Turn(last, None))
    return Trajectory(task, prompt, turns, StopReason.ANSWERED, "7")


def test_a_trace_has_the_tokens_of_the_episode_it_came_from(codec, played, tmp_path):
    path = write_traces(tmp_path / "traces", [TraceSource(played)])
    (trace,) = read_traces(path)
    sample = encode_trace(trace, codec)
    lived = make_sample(played, advantage=1.0)
    assert sample.token_ids == lived.token_ids
    assert sample.loss_mask == lived.loss_mask
    assert [i.tobytes() for i in sample.images] == [i.tobytes() for i in lived.images]


def test_hidden_characters_reach_the_loss_mask(codec, played, tmp_path):
    path = write_traces(tmp_path, [TraceSource(played, ((), ((6, 7),)))])
    (trace,) = read_traces(path)
    sample = encode_trace(trace, codec)
    lived = make_sample(played, advantage=1.0)
    skipped = [
        token
        for token, learn, did in zip(
            sample.token_ids, sample.loss_mask, lived.loss_mask, strict=True
        )
        if did and not learn
    ]
    assert "7" in codec.tokenizer.decode(skipped)
    assert len(skipped) == 1


def test_an_observation_role_is_wrapped_as_the_user_message_is(codec, image_file, tmp_path):
    content = "<interpreter>\nText Result:\n12</interpreter>\n"

    def sample_of(role: str, text: str):
        rows = [
            {
                "conversations": [
                    {"role": "user", "content": "<image>?"},
                    {"role": "assistant", "content": "<code>1</code>"},
                    {"role": role, "content": text},
                    {"role": "assistant", "content": "12"},
                ],
                "images": [str(image_file)],
            }
        ]
        path = tmp_path / f"{role}.json"
        path.write_text(json.dumps(rows))
        return encode_trace(read_traces(path)[0], codec)

    wrapped = f"<tool_response>\n{content}\n</tool_response>"
    assert sample_of("observation", content) == sample_of("user", wrapped)


def test_a_traces_own_system_line_opens_its_conversation(codec, tmp_path):
    def opened(*lines: dict[str, str]) -> str:
        turns = [
            {"role": "user", "content": "Which?"},
            {"role": "assistant", "content": "I see 7."},
        ]
        path = tmp_path / "traces.json"
        path.write_text(json.dumps([{"conversations": [*lines, *turns]}]))
        (trace,) = read_traces(path)
        return codec.tokenizer.decode(encode_trace(trace, codec).token_ids)

    rest = "<|im_end|>\n<|im_start|>user\nWhich?<|im_end|>\n<|im_start|>assistant\nI see 7."
    own = opened({"role": "system", "content": "Be good."})
    assert own.startswith(f"<|im_start|>system\nBe good.{rest}")
    assert opened().startswith(f"<|im_start|>system\nYou are a helpful assistant.{rest}")


def test_samples_beyond_the_memory_are_encoded_again(codec, tmp_path):
    traces = read_traces(trace_file(tmp_path))
    eager = [encode_trace(trace, codec) for trace in traces]
    encoded: list[int] = []

    def encode(row, trace):
        encoded.append(row)
        return encode_trace(trace, codec)

    room = num_bytes(eager[0]) + num_bytes(eager[1])
    samples = TraceSamples(traces, encode, max_bytes=room)
    assert encoded == [0, 1, 2, 3]
    assert [*samples] == samples[:] == eager
    assert encoded == [0, 1, 2, 3, 2, 3, 2, 3]
    # 500 x 333 pixels are most of it.
    assert num_bytes(eager[0]) > 3 * sum(image.width * image.height for image in eager[0].images)


def test_batches_hold_every_trace_once():
    batches = epoch_batches(203, 8, seed=1, epoch=0)
    assert sorted(index for batch in batches for index in batch) == list(range(203))
    assert [len(batch) for batch in batches] == [8] * 25 + [3]
    assert batches != epoch_batches(203, 8, seed=1, epoch=1)
    assert batches == epoch_batches(203, 8, seed=1, epoch=0)


def test_the_schedule_warms_up_and_falls():
    config = SFTTrainConfig(warmup_steps=2, final_rate=0.1, batch_size=10, num_epochs=2)
    assert num_steps(25, config) == 6
    assert rate_at(1, 10, config) == 0.5
    assert rate_at(2, 10, config) == pytest.approx(0.9)
    assert rate_at(6, 10, config) == pytest.approx(0.5)
    assert rate_at(10, 10, config) == pytest.approx(0.1)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_lowers_the_loss(tiny_random_checkpoint, codec, played, tmp_path, optimizer):
    path = write_traces(tmp_path, [TraceSource(played)] * 4)
    policy = Policy.load(PolicyConfig(str(tiny_random_checkpoint), PixelLimits(784, 28224)))
    samples = [encode_trace(trace, policy.codec) for trace in read_traces(path)]
    config = SFTTrainConfig(
        num_epochs=8, batch_size=4, optimizer=optimizer, learning_rate=3e-3, warmup_steps=0
    )
    losses: list[float] = []
    train(policy, samples, config, 0, lambda step, metrics: losses.append(metrics["loss/sft"]))
    assert len(losses) == 8
    assert losses[-1] < losses[0] - 0.5


def test_a_gradient_that_is_not_finite_is_skipped_and_counted(
    tiny_random_checkpoint, codec, played, tmp_path
):
    (trace,) = read_traces(write_traces(tmp_path, [TraceSource(played)]))
    policy = Policy.load(PolicyConfig(str(tiny_random_checkpoint), PixelLimits(784, 28224)))
    with torch.no_grad():
        policy.model.model.language_model.norm.weight[0] = torch.nan
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    logged: list[dict[str, float]] = []
    config = SFTTrainConfig(learning_rate=1.0, warmup_steps=0)
    train(policy, [encode_trace(trace, codec)], config, 0, lambda _, found: logged.append(found))
    assert [found["learner/skipped_updates"] for found in logged] == [1]
    for name, weight in policy.model.named_parameters():
        torch.testing.assert_close(weight, before[name], rtol=0, atol=0, equal_nan=True)
