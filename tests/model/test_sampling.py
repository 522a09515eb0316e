import pytest
import torch

from pyvision_rl.model.engine import SamplingParams
from pyvision_rl.model.policy import BANNED_LOGIT
from pyvision_rl.model.sampling import Limits, StopStrings, Uniforms, sample
from pyvision_rl.model.tiny import train_tokenizer

PROBS = torch.tensor([0.1, 0.4, 0.0, 0.2, 0.3])
LOGITS = PROBS.log().clamp(min=BANNED_LOGIT)


def drawn(uniforms, **limits):
    """Tokens that uniform numbers lead to on PROBS."""
    params = [SamplingParams(max_tokens=1, **limits)] * len(uniforms)
    rows = LOGITS.expand(len(uniforms), -1)
    numbers = torch.tensor(uniforms, dtype=torch.float64)
    tokens, logprobs = sample(rows, numbers, Limits.of(params, 5, torch.device("cpu")))
    temperature = limits.get("temperature", 1.0) or 1.0
    whole = (LOGITS / temperature).log_softmax(-1)
    assert torch.allclose(logprobs, whole[tokens])
    return tokens.tolist()


def test_inversion_by_hand():
    # Cumulative: 0.1, 0.5, 0.5, 0.7, 1.0; the impossible token is skipped at its very edge.
    assert drawn([0.0, 0.09, 0.11, 0.49, 0.51, 0.69, 0.71, 1 - 2**-53]) == [0, 0, 1, 1, 3, 3, 4, 4]


@pytest.mark.parametrize(
    ("limits", "allowed"),
    [
        ({"top_k": 1}, {1}),
        ({"top_k": 3}, {1, 4, 3}),
        ({"top_p": 0.39}, {1}),
        ({"top_p": 0.41}, {1, 4}),
        ({"top_p": 0.75}, {1, 4, 3}),
        # Of the two likeliest, 0.4 is a share of 0.57.
        ({"top_k": 2, "top_p": 0.5}, {1}),
        ({"temperature": 0.0}, {1}),
    ],
    ids=str,
)
def test_limits(limits, allowed):
    assert set(drawn([i / 200 for i in range(200)], **limits)) == allowed


def test_frequencies_follow_the_temperature():
    tokens = drawn([(i + 0.5) / 1000 for i in range(1000)], temperature=0.5)
    # Squares 0.01, 0.16, 0, 0.04, 0.09 over their sum 0.3.
    assert [tokens.count(token) for token in range(5)] == [33, 534, 0, 133, 300]


def test_rare_tokens_have_their_place():
    # Two of probability 2**-34 between 1/4 and 3/4: next to 1/4 single precision cannot hold them.
    logits = torch.tensor([0.25, 2**-34, 2**-34, 0.75]).log()[None]
    shares = logits.log_softmax(-1).exp().double()[0]
    limits = Limits.of([SamplingParams(max_tokens=1)], 4, torch.device("cpu"))
    for token in (1, 2):
        middle = (shares[:token].sum() + shares[token] / 2) / shares.sum()
        assert sample(logits, middle[None], limits)[0].tolist() == [token]


def test_mixed_limits_do_not_disturb_each_other():
    params = [SamplingParams(1), SamplingParams(1, top_k=1), SamplingParams(1, temperature=0.0)]
    limits = Limits.of(params, 5, torch.device("cpu"))
    numbers = torch.full((3,), 0.99, dtype=torch.float64)
    tokens, _ = sample(LOGITS.expand(3, -1), numbers, limits)
    assert tokens.tolist() == [4, 1, 1]


def test_uniforms_belong_to_the_seed():
    first, same, other = Uniforms(1), Uniforms(1), Uniforms(2)
    numbers = [first.draw() for _ in range(600)]
    assert numbers == [same.draw() for _ in range(600)]
    assert numbers != [other.draw() for _ in range(600)]
    assert len(set(numbers)) == 600
    assert 0 <= min(numbers) < max(numbers) < 1


@pytest.mark.parametrize("text", ["a </code> b", "é</code>\n", "x ended. y", "naïve ü", "nothing"])
def test_stops_are_seen_at_the_token_that_completes_them(text):
    tokenizer = train_tokenizer(["</code> ended. <code> code"], 320)
    strings = ("</code>", "ended.", "ü")
    stops = StopStrings(tokenizer, strings)
    ids = tokenizer.encode(text)
    for stop in range(1, len(ids) + 1):
        has_ended = any(string in tokenizer.decode(ids[:stop]) for string in strings)
        assert stops.ended_by(ids[max(0, stop - stops.window) : stop]) == has_ended
        if has_ended:
            break


def test_a_stop_string_may_be_as_many_tokens_as_it_has_bytes():
    tokenizer = train_tokenizer(["xyz"], 260)
    stops = StopStrings(tokenizer, ("</code>", "é!"))
    for text, size in (("so </code>", 7), ("so é!", 3)):
        ids = tokenizer.encode(text)
        assert len(ids) == 3 + size
        ended = [
            stops.ended_by(ids[max(0, stop - stops.window) : stop])
            for stop in range(1, len(ids) + 1)
        ]
        assert ended == [False] * (len(ids) - 1) + [True]
