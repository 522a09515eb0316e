"""The transformers engine against the training forward, `generate`, itself and its promises."""

import asyncio
import random
from contextlib import suppress
from functools import partial

import pytest
import torch

from pyvision_rl.errors import ConfigError, InputError, PyVisionError
from pyvision_rl.model.batch import Sample, collate
from pyvision_rl.model.engine import SamplingParams
from pyvision_rl.model.hf_engine import EngineConfig, HFEngine
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.inputs import make_patches
from pyvision_rl.model.policy import Policy, PolicyConfig
from pyvision_rl.types import Context
from tests.contracts.engine import EngineContract
from tests.model.play import picture, play

GREEDY = SamplingParams(max_tokens=16, temperature=0.0, stop=())


@pytest.fixture(scope="module")
def policy(tiny_random_checkpoint):
    torch.set_num_threads(1)
    return Policy.load(PolicyConfig(str(tiny_random_checkpoint), PixelLimits(784, 28224)))


class TestContract(EngineContract):
    @pytest.fixture(autouse=True)
    def _use(self, policy):
        self.policy = policy

    def open_engine(self):
        return HFEngine(self.policy)

    @property
    def codec(self):
        return self.policy.codec


def play_many(policy, config=None, seeds=range(12), **options):
    async def main():
        async with HFEngine(policy, config) as engine:
            jobs = (
                play(engine, policy.codec, seed, num_turns=1 + seed % 4, **options)
                for seed in seeds
            )
            return await asyncio.gather(*jobs)

    return asyncio.run(main())


def as_sample(context):
    """Tokens, mask and the sampler's log-probs of a conversation."""
    mask = [0] * len(context.prompt.token_ids)
    logprobs = [0.0] * len(mask)
    for turn in context.turns:
        mask += [1] * len(turn.completion.token_ids)
        logprobs += turn.completion.logprobs
        observed = turn.observation.token_ids if turn.observation else ()
        mask += [0] * len(observed)
        logprobs += [0.0] * len(observed)
    return Sample(context.token_ids, tuple(mask), tuple(logprobs), 0.0, context.images)


def assert_training_agrees(policy, contexts, temperature=1.0):
    batch = collate([as_sample(context) for context in contexts], policy.pad_id, policy.device)
    with torch.no_grad():
        logprobs, _ = policy.token_logprobs(
            batch.token_ids_BT,
            batch.attention_mask_BT,
            batch.loss_mask_BT,
            batch.images,
            temperature,
        )
    assert batch.loss_mask_BT.sum() > 100
    assert (logprobs - batch.logprobs_BT).abs().max() < 2e-5


def tokens_of(contexts):
    return [context.token_ids for context in contexts]


def logprobs_of(contexts):
    return [turn.completion.logprobs for context in contexts for turn in context.turns]


async def random_delay(_, rng):
    await asyncio.sleep(rng.random() * 0.02)


@pytest.mark.parametrize("schedule", ["continuous", "barrier"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_sampler_and_training_give_the_same_logprobs(policy, schedule, temperature):
    params = SamplingParams(max_tokens=24, temperature=temperature)
    contexts = play_many(
        policy,
        EngineConfig(schedule=schedule),
        seeds=range(24),
        params=params,
        wait=partial(random_delay, rng=random.Random(0)),
    )
    assert any(turn.observation and turn.observation.images for c in contexts for turn in c.turns)
    assert_training_agrees(policy, contexts, temperature)


def test_greedy_equals_generate(policy):
    context = Context("g", policy.codec.prompt("find the red tag", [picture(3), picture(4, 56)]))

    async def main():
        async with HFEngine(policy) as engine, engine.session() as session:
            return await session.generate(context, GREEDY, seed=0)

    ids = torch.tensor([context.token_ids])
    pixels, grids = make_patches(policy.vision.processor, context.images)
    written = policy.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values=pixels,
        image_grid_thw=grids,
        mm_token_type_ids=(ids == policy.codec.image_pad_id).int(),
        suppress_tokens=list(policy.banned_ids),
        do_sample=False,
        max_new_tokens=GREEDY.max_tokens,
    )
    assert asyncio.run(main()).token_ids == tuple(written[0, ids.shape[1] :].tolist())


def test_what_is_kept_changes_nothing(policy):
    kept = play_many(policy)
    # Room for three or four rows at once and for nothing that waits.
    tight = play_many(policy, EngineConfig(kv_cache_tokens=1500))
    assert tokens_of(kept) == tokens_of(tight)
    assert_training_agrees(policy, tight)


def test_rows_that_outgrow_the_room_come_back(policy):
    params = SamplingParams(max_tokens=60, stop=())
    prompt = policy.codec.prompt("find the red tag", [picture(1)])
    length = len(prompt.token_ids)

    def complete(config):
        async def main():
            async with HFEngine(policy, config) as engine:
                return await asyncio.gather(*(one(engine, seed) for seed in range(6)))

        async def one(engine, seed):
            async with engine.session() as session:
                return await session.generate(Context("c", prompt), params, seed=seed)

        return asyncio.run(main())

    # All six fit at first, and can never end side by side.
    tight = complete(EngineConfig(kv_cache_tokens=6 * (length + 10)))
    free = complete(EngineConfig())
    assert [done.token_ids for done in tight] == [done.token_ids for done in free]
    assert max(len(done.token_ids) for done in free) > 10


@pytest.mark.parametrize(
    "limits",
    [{}, {"top_k": 5}, {"top_p": 0.7}, {"top_k": 20, "top_p": 0.9}, {"temperature": 0.0}],
    ids=str,
)
def test_a_seed_gives_the_same_tokens_alone_and_in_a_crowd(policy, limits):
    params = SamplingParams(max_tokens=16, **limits)

    async def crowd():
        async with HFEngine(policy) as engine:
            jobs = [play(engine, policy.codec, 5, params=params)]
            jobs += [play(engine, policy.codec, seed, num_turns=4) for seed in range(20)]
            return (await asyncio.gather(*jobs))[0]

    async def alone():
        async with HFEngine(policy) as engine:
            return await play(engine, policy.codec, 5, params=params)

    assert asyncio.run(crowd()).token_ids == asyncio.run(alone()).token_ids


def test_banned_tokens_are_not_sampled_even_when_favoured(policy):
    weight = policy.model.lm_head.weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight[list(policy.banned_ids)] *= 50
    policy.weights_changed()
    try:
        contexts = play_many(policy)
    finally:
        with torch.no_grad():
            weight.copy_(before)
        policy.weights_changed()
    written = {token for c in contexts for turn in c.turns for token in turn.completion.token_ids}
    assert not written & set(policy.banned_ids)


def test_no_trajectory_waits_for_anothers_tool(policy):
    async def main():
        gate = asyncio.Event()

        async def hold(_):
            await gate.wait()

        async with HFEngine(policy) as engine:
            held = asyncio.create_task(play(engine, policy.codec, 1, wait=hold))
            others = [play(engine, policy.codec, seed, num_turns=4) for seed in range(2, 8)]
            await asyncio.gather(*others)
            assert not held.done()
            gate.set()
            return await held

    assert len(asyncio.run(main()).turns) == 3


def test_a_barrier_waits_for_every_open_session(policy):
    config = EngineConfig(schedule="barrier")

    async def main():
        gate = asyncio.Event()
        async with HFEngine(policy, config) as engine:
            async with engine.session():
                waiting = asyncio.create_task(play(engine, policy.codec, 2))
                done, _ = await asyncio.wait([waiting], timeout=0.2)
                assert not done
                gate.set()
            return await waiting

    assert len(asyncio.run(main()).turns) == 3


@pytest.mark.parametrize("max_rows", [256, 5])
def test_a_barrier_repeats_bit_by_bit(policy, max_rows):
    config = EngineConfig(schedule="barrier", max_rows=max_rows)
    runs = [
        play_many(policy, config, wait=partial(random_delay, rng=random.Random(seed)))
        for seed in range(3)
    ]
    assert tokens_of(runs[0]) == tokens_of(runs[1]) == tokens_of(runs[2])
    assert logprobs_of(runs[0]) == logprobs_of(runs[1]) == logprobs_of(runs[2])


def test_max_rows_bounds_what_runs_at_once(policy, monkeypatch):
    seen = []

    async def main():
        async with HFEngine(policy, EngineConfig(max_rows=3)) as engine:
            step = engine._decoder.step

            def watched_step():
                seen.append(len(engine._decoder.rows))
                return step()

            monkeypatch.setattr(engine._decoder, "step", watched_step)
            await asyncio.gather(*(play(engine, policy.codec, seed) for seed in range(8)))

    asyncio.run(main())
    assert max(seen) == 3


def test_a_cancelled_completion_frees_its_row(policy):
    long = SamplingParams(max_tokens=3000, stop=())

    async def main():
        async with HFEngine(policy, EngineConfig(max_rows=1)) as engine:
            task = asyncio.create_task(play(engine, policy.codec, 1, 1, params=long))
            while not engine._decoder.rows:
                await asyncio.sleep(0.01)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            return await play(engine, policy.codec, 2)

    assert len(asyncio.run(main()).turns) == 3


def test_a_cancelled_completion_harms_no_other(policy):
    long = SamplingParams(max_tokens=120, stop=())

    async def main(is_cancelled):
        async with HFEngine(policy) as engine:
            jobs = (play(engine, policy.codec, seed, 1, params=long) for seed in (1, 2, 3))
            tasks = [asyncio.create_task(job) for job in jobs]
            while len(engine._decoder.rows) < 3:
                await asyncio.sleep(0.001)
            if is_cancelled:
                # Not the last row: another takes its place.
                tasks[engine._decoder.rows[0].session].cancel()
            return await asyncio.gather(*tasks, return_exceptions=True)

    alone, cancelled = asyncio.run(main(False)), asyncio.run(main(True))
    assert [type(end) for end in cancelled].count(asyncio.CancelledError) == 1
    for one, other in zip(alone, cancelled, strict=True):
        if isinstance(one, Context) and isinstance(other, Context):
            assert one.token_ids == other.token_ids
    assert sum(isinstance(end, Context) for end in (*alone, *cancelled)) == 5


def test_an_error_in_the_thread_reaches_everyone_and_the_engine_goes_on(policy, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of memory")

    async def main():
        async with HFEngine(policy) as engine:
            with monkeypatch.context() as patch:
                patch.setattr(engine._decoder, "step", fail)
                jobs = (play(engine, policy.codec, seed) for seed in range(4))
                failed = await asyncio.gather(*jobs, return_exceptions=True)
            return failed, await play(engine, policy.codec, 1)

    failed, fine = asyncio.run(main())
    assert [str(error) for error in failed] == ["out of memory"] * 4
    assert len(fine.turns) == 3


def test_closing_ends_whoever_waits(policy):
    long = SamplingParams(max_tokens=3000, stop=())

    async def main():
        engine = HFEngine(policy)
        task = asyncio.create_task(play(engine, policy.codec, 1, 1, params=long))
        while not engine._decoder.rows:
            await asyncio.sleep(0.01)
        await engine.aclose()
        with pytest.raises(PyVisionError, match="closed"):
            await task
        with pytest.raises(PyVisionError, match="closed"):
            await play(engine, policy.codec, 1)

    asyncio.run(main())


@pytest.mark.parametrize("is_new_session", [False, True])
def test_new_weights_are_used_at_once(policy, is_new_session):
    bias = policy.model.model.language_model.norm.weight

    async def main():
        # the next step's group may be of the same task: its opening must be computed anew
        async with HFEngine(policy) as engine, engine.session() as one, engine.session() as other:
            context = Context("c", policy.codec.prompt("find", [picture(1)]))
            old = await one.generate(context, GREEDY, seed=0)
            with torch.no_grad():
                bias.mul_(2.0)
            policy.weights_changed()
            try:
                session = other if is_new_session else one
                return old, await session.generate(context, GREEDY, seed=0)
            finally:
                with torch.no_grad():
                    bias.div_(2.0)
                policy.weights_changed()

    old, new = asyncio.run(main())
    # Twice the logits: the likeliest first token stays, and is likelier.
    assert old.token_ids[0] == new.token_ids[0]
    assert new.logprobs[0] > old.logprobs[0] + 1e-3


def test_a_group_opens_once(policy, monkeypatch):
    sizes = []
    encode = policy.vision._encode_batch
    monkeypatch.setattr(
        policy.vision, "_encode_batch", lambda images: sizes.append(images) or encode(images)
    )
    prompt = policy.codec.prompt("find the red tag", [picture(77)])

    async def main():
        async with HFEngine(policy) as engine:
            forward = policy.model.model.language_model.forward
            rows = []

            def watched(*args, **options):
                if options["inputs_embeds"].shape[1] > 1:
                    rows.append(options["inputs_embeds"].shape[0])
                return forward(*args, **options)

            monkeypatch.setattr(policy.model.model.language_model, "forward", watched)

            async def one(seed):
                async with engine.session() as session:
                    return await session.generate(Context("c", prompt), GREEDY, seed=seed)

            await asyncio.gather(*map(one, range(8)))
            return rows

    assert asyncio.run(main()) == [1]
    assert len(sizes) == 1


def test_bad_requests_are_named(policy):
    prompt = policy.codec.prompt("find", [picture(1)])
    cut = Context("c", type(prompt)(prompt.token_ids, prompt.text, (), 0))

    async def main():
        config = EngineConfig(kv_cache_tokens=200)
        async with HFEngine(policy, config) as engine, engine.session() as session:
            with pytest.raises(InputError, match="9 image tokens, but 0 images"):
                await session.generate(cut, GREEDY, seed=0)
            long = SamplingParams(max_tokens=999)
            with pytest.raises(InputError, match="kv_cache_tokens: 200 are too few"):
                await session.generate(Context("c", prompt), long, seed=0)
            await session.generate(Context("c", prompt), GREEDY, seed=0)

    asyncio.run(main())
    with pytest.raises(ConfigError, match=r"engine.max_rows: 0"):
        EngineConfig(max_rows=0)
