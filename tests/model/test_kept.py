"""What the transformers engine keeps from turn to turn, and of what it keeps what it may use."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import numpy as np
import pytest
import torch

from pyvision_rl.errors import PyVisionError
from pyvision_rl.model import decode
from pyvision_rl.model.engine import SamplingParams
from pyvision_rl.model.hf_engine import EngineConfig, HFEngine
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.kv import Kept, KeptCache
from pyvision_rl.model.policy import Policy, PolicyConfig
from pyvision_rl.model.row import Row
from pyvision_rl.model.sampling import Uniforms
from pyvision_rl.types import Completion, Context, Turn
from tests.model.play import picture, play

GREEDY = SamplingParams(max_tokens=16, temperature=0.0, stop=())


@pytest.fixture(scope="module")
def policy(tiny_random_checkpoint):
    torch.set_num_threads(1)
    return Policy.load(PolicyConfig(str(tiny_random_checkpoint), PixelLimits(784, 28224)))


def watch_forward(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Rows and tokens of every forward of the language model from now on."""
    forward = policy.model.model.language_model.forward
    shapes = []

    def watched(*args, **options):
        shapes.append(tuple(options["inputs_embeds"].shape[:2]))
        return forward(*args, **options)

    monkeypatch.setattr(policy.model.model.language_model, "forward", watched)
    return shapes


def assert_same(one: Completion, other: Completion) -> None:
    assert one.token_ids == other.token_ids
    assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_weights_that_change_under_a_completion_are_an_error(policy):
    long = SamplingParams(max_tokens=3000, stop=())

    async def main():
        async with HFEngine(policy) as engine:
            task = asyncio.create_task(play(engine, policy.codec, 1, 1, params=long))
            while not engine._decoder.rows:
                await asyncio.sleep(0.001)
            policy.weights_changed()
            with pytest.raises(PyVisionError, match="weights changed while 1 completions"):
                await task

    asyncio.run(main())


def test_what_runs_at_once_fits_the_room(policy, monkeypatch):
    prompt = policy.codec.prompt("find the red tag", [picture(1)])
    room = 3 * (len(prompt.token_ids) + 20)
    held = []

    async def main():
        async with HFEngine(policy, EngineConfig(kv_cache_tokens=room)) as engine:
            decoder = engine._decoder
            step = decoder.step

            def watched_step():
                held.append(len(decoder.rows) * max(len(row.token_ids) for row in decoder.rows))
                return step()

            monkeypatch.setattr(decoder, "step", watched_step)

            async def one(seed):
                async with engine.session() as session:
                    return await session.generate(Context("c", prompt), GREEDY, seed=seed)

            return await asyncio.gather(*map(one, range(6)))

    assert len(asyncio.run(main())) == 6
    assert 2 * len(prompt.token_ids) < max(held) <= room


def test_a_turn_computes_what_is_new_alone(policy, monkeypatch):
    prompt = policy.codec.prompt("find the red tag", [picture(1)])
    shapes = watch_forward(policy, monkeypatch)

    async def main():
        async with HFEngine(policy) as engine, engine.session() as session:
            context = Context("c", prompt)
            first = await session.generate(context, GREEDY, seed=0)
            assert shapes[0] == (1, len(prompt.token_ids))
            shapes.clear()
            seen = policy.codec.observation(first, "7", [], 1, True)
            await session.generate(replace(context, turns=(Turn(first, seen),)), GREEDY, seed=1)
            return len(seen.token_ids)

    # with the last sampled token, which no forward has seen yet
    new = asyncio.run(main())
    assert new <= shapes[0][1] <= new + 1
    assert {size for _, size in shapes[1:]} == {1}


def test_a_context_that_is_another_one_is_computed_anew(policy):
    one, other = (
        Context("c", policy.codec.prompt(text, [picture(number)]))
        for number, text in ((1, "find the red tag"), (2, "find the red"))
    )

    async def main(contexts):
        async with HFEngine(policy) as engine, engine.session() as session:
            return [await session.generate(context, GREEDY, seed=0) for context in contexts][-1]

    assert_same(asyncio.run(main([one, other])), asyncio.run(main([other])))


def test_a_second_turn_beside_a_first_one(policy):
    """One goes on from what is kept, the other begins, in one prefill."""
    first, fresh = (
        Context(name, policy.codec.prompt(text, [picture(number)]))
        for name, number, text in (("a", 1, "find the red tag"), ("b", 2, "find the red"))
    )

    async def main(is_alone):
        async with HFEngine(policy, EngineConfig(schedule="barrier")) as engine:
            async with engine.session() as one:
                done = await one.generate(first, GREEDY, seed=0)
                seen = policy.codec.observation(done, "7 8 9", [picture(3)], 1, True)
                second = replace(first, turns=(Turn(done, seen),))
                if is_alone:
                    continued = await one.generate(second, GREEDY, seed=1)
                else:
                    async with engine.session() as other:
                        return await asyncio.gather(
                            one.generate(second, GREEDY, seed=1),
                            other.generate(fresh, GREEDY, seed=2),
                        )
            async with engine.session() as other:
                return continued, await other.generate(fresh, GREEDY, seed=2)

    for together, alone in zip(asyncio.run(main(False)), asyncio.run(main(True)), strict=True):
        assert_same(together, alone)


def test_a_prefill_is_cut_to_its_bound(policy, monkeypatch):
    texts = ["find", "find the", "find the red", "find the red tag", "red tag"]
    contexts = [Context(text, policy.codec.prompt(text, [])) for text in texts]
    longest = max(len(context.token_ids) for context in contexts)
    monkeypatch.setattr(decode, "PREFILL_TOKENS", 2 * longest)
    shapes = watch_forward(policy, monkeypatch)

    async def main():
        async with HFEngine(policy, EngineConfig(schedule="barrier")) as engine:

            async def one(context):
                async with engine.session() as session:
                    return await session.generate(context, GREEDY, seed=0)

            return await asyncio.gather(*map(one, contexts))

    assert len(asyncio.run(main())) == 5
    prefills = [(rows, size) for rows, size in shapes if size > 1]
    assert sum(rows for rows, _ in prefills) == 5
    assert max(rows * size for rows, size in prefills) <= 2 * longest


def test_what_is_kept_of_sessions_that_wait_is_bounded(policy):
    prompts = [policy.codec.prompt("find the red tag", [picture(seed)]) for seed in range(6)]
    room = 3 * (len(prompts[0].token_ids) + GREEDY.max_tokens)

    async def main():
        config = EngineConfig(kv_cache_tokens=room)
        async with HFEngine(policy, config) as engine, AsyncExitStack() as stack:
            kept = []
            for prompt in prompts:
                session = await stack.enter_async_context(engine.session())
                await session.generate(Context("c", prompt), GREEDY, seed=0)
                kept.append(engine._decoder._kept.num_tokens)
            return kept

    kept = asyncio.run(main())
    assert 0 < max(kept) <= room


def test_what_the_policy_wrote_is_told_from_its_context():
    # two tokens of context, three written
    row = Row(0, [5, 6, 7, 8, 9], (), np.zeros((3, 2), np.int64), GREEDY, Uniforms(0), True)
    assert row.sampled == [7, 8, 9]
    assert [row.sampled_tail(size) for size in (1, 3, 9)] == [[9], [7, 8, 9], [7, 8, 9]]


def test_an_opening_that_is_known_needs_no_forward(policy, monkeypatch):
    context = Context("c", policy.codec.prompt("find the red tag", [picture(1)]))
    shapes = watch_forward(policy, monkeypatch)

    async def main():
        async with HFEngine(policy) as engine, engine.session() as one, engine.session() as other:
            for session in (one, other):
                await session.generate(context, SamplingParams(max_tokens=1), seed=0)

    asyncio.run(main())
    assert shapes == [(1, len(context.token_ids))]


def test_what_was_asked_for_last_is_kept_longest():
    cache = KeptCache()
    for key in "abc":
        cache.put(key, Kept((1, 2), torch.empty(0), torch.empty(0)))
    assert cache.get("a") is not None
    assert cache.num_tokens == 6
    cache.shrink(4)
    assert (cache.get("b"), cache.num_tokens) == (None, 4)
    cache.shrink(3)
    assert (cache.get("c"), cache.num_tokens) == (None, 2)
    assert cache.get("a") is not None
