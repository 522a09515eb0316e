"""Episodes on verl's samplers: what is asked of them, and how their answers read."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from PIL import Image

from pyvision_rl.distributed.sampler import VerlEngine
from pyvision_rl.errors import PyVisionError
from pyvision_rl.model.engine import SamplingParams
from pyvision_rl.types import Context


@dataclass
class Answer:
    token_ids: list[int]
    log_probs: list[float] | None


@dataclass
class Client:
    """Answers with given tokens, and keeps what it was asked."""

    answers: list[Answer]
    asked: list[dict] = field(default_factory=list)

    async def generate(self, request_id, **request):
        self.asked.append({"request_id": request_id, **request})
        return self.answers.pop(0)


def ask(codec, *answers: Answer, params: SamplingParams | None = None):
    client = Client(list(answers))
    prompt = codec.prompt("find", [Image.new("RGB", (56, 56))])

    async def run():
        async with VerlEngine(client, codec, (3, 5)).session() as session:
            params_ = params or SamplingParams(max_tokens=9)
            context = Context("t", prompt)
            return [await session.generate(context, params_, seed=2**40 + 7) for _ in answers]

    return asyncio.run(run()), client.asked, prompt


def test_the_request_is_by_tokens_with_all_images_and_bans(codec):
    _, [first, second], prompt = ask(codec, Answer([1], [-1.0]), Answer([1], [-1.0]))
    assert first["prompt_ids"] == list(prompt.token_ids)
    assert first["image_data"] == list(prompt.images)
    # one trajectory, one sampler: its prefix is kept there
    assert first["request_id"] == second["request_id"]
    assert first["sampling_params"] == {
        "max_tokens": 9,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": -1,
        "seed": 2**40 + 7,
        "stop": ["</code>"],
        "stop_token_ids": [codec.end_of_turn_id],
        "include_stop_str_in_output": True,
        "skip_special_tokens": False,
        "logit_bias": {3: -100.0, 5: -100.0},
        "logprobs": True,
    }


def test_how_a_completion_ended_is_read_from_its_tokens(codec):
    text = codec.encode_completion("see </code>")[0][:-1]
    ended = (*codec.encode_completion("see")[0],)
    cut = codec.encode_completion("see")[0][:-1]
    answers = [Answer(list(ids), [-0.5] * len(ids)) for ids in (text, ended, cut)]
    completions, _, _ = ask(codec, *answers)
    assert [completion.finish for completion in completions] == ["stop", "stop", "length"]
    assert [completion.text for completion in completions] == ["see </code>", "see", "see"]
    assert completions[0].token_ids == tuple(text)
    assert completions[1].logprobs == (-0.5,) * len(ended)


@pytest.mark.parametrize("logprobs", [None, [-0.5]])
def test_tokens_without_log_probs_are_refused(codec, logprobs):
    with pytest.raises(PyVisionError, match="2 tokens with"):
        ask(codec, Answer([1, 2], logprobs))
