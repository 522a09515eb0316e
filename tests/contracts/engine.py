"""What every engine must do: inherit `EngineContract` in a test class and say how to open one."""

import asyncio

from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.engine import Engine, SamplingParams
from pyvision_rl.types import Context, Turn
from tests.model.play import picture, play

GREEDY = SamplingParams(max_tokens=12, temperature=0.0, stop=())
SAMPLED = SamplingParams(max_tokens=12, stop=())


class EngineContract:
    """Tests of the `Engine` protocol, for an engine over any model."""

    hottest = 5.0
    """The highest temperature that the engine takes."""

    def open_engine(self):
        """A fresh engine as an async context manager."""
        raise NotImplementedError

    @property
    def codec(self) -> ChatCodec:
        """The codec of the engine's model."""
        raise NotImplementedError

    def context(self, *images) -> Context:
        return Context("c", self.codec.prompt("find the red tag", images))

    async def complete(self, engine: Engine, context: Context, params: SamplingParams, seed: int):
        async with engine.session() as session:
            return await session.generate(context, params, seed=seed)

    def run(self, *requests):
        """Complete (context, params, seed) triples side by side on a fresh engine."""

        async def main():
            async with self.open_engine() as engine:
                jobs = (self.complete(engine, *request) for request in requests)
                return await asyncio.gather(*jobs)

        return asyncio.run(main())

    def test_a_completion_is_consistent(self):
        for done in self.run(*((self.context(picture(1)), SAMPLED, seed) for seed in range(4))):
            assert len(done.token_ids) == len(done.logprobs)
            assert all(logprob <= 0 for logprob in done.logprobs)
            assert done.text == self.codec.decode(done.token_ids)
            if done.finish == "length":
                assert len(done.token_ids) == SAMPLED.max_tokens
            else:
                assert done.token_ids[-1] == self.codec.end_of_turn_id

    def test_greedy_ignores_the_seed(self):
        one, other = self.run((self.context(), GREEDY, 1), (self.context(), GREEDY, 2))
        assert one.token_ids == other.token_ids

    def test_the_seed_decides(self):
        one, same, other = self.run(*((self.context(), SAMPLED, seed) for seed in (1, 1, 2)))
        assert one.token_ids == same.token_ids
        assert one.token_ids != other.token_ids

    def test_the_image_matters(self):
        one, other = self.run(
            (self.context(picture(1)), GREEDY, 0), (self.context(picture(2)), GREEDY, 0)
        )
        assert one.logprobs != other.logprobs

    def test_a_stop_string_ends_the_completion_and_is_kept(self):
        free = self.run((self.context(), SAMPLED, 3))[0]
        stop = free.text[len(free.text) // 2]
        params = SamplingParams(max_tokens=12, stop=(stop, "never"))
        done = self.run((self.context(), params, 3))[0]
        assert done.finish == "stop"
        assert done.token_ids == free.token_ids[: len(done.token_ids)]
        assert stop in done.text
        assert stop not in self.codec.decode(done.token_ids[:-1])

    def test_turns_continue_the_context(self):
        async def main():
            async with self.open_engine() as engine:
                context = await play(engine, self.codec, seed=4, num_turns=3, params=GREEDY)
                last = context.turns[-1].completion
                before = Context("again", context.prompt, context.turns[:-1])
                return last, await self.complete(engine, before, GREEDY, 0)

        continued, afresh = asyncio.run(main())
        assert continued.token_ids == afresh.token_ids

    def test_vision_tokens_are_never_written(self):
        params = SamplingParams(max_tokens=64, temperature=self.hottest, stop=())
        special = {self.codec.tokenizer.convert_tokens_to_ids(t) for t in self.banned_tokens()}
        for done in self.run(*((self.context(picture(1)), params, seed) for seed in range(8))):
            assert not special & set(done.token_ids)

    @staticmethod
    def banned_tokens():
        return (
            "<|vision_start|>",
            "<|vision_end|>",
            "<|image_pad|>",
            "<|video_pad|>",
            "<|vision_pad|>",
            "<|im_start|>",
            "<|endoftext|>",
        )

    def test_an_observation_without_images_is_fine(self):
        async def main():
            async with self.open_engine() as engine:
                context = self.context(picture(1))
                async with engine.session() as session:
                    first = await session.generate(context, SAMPLED, seed=0)
                    seen = self.codec.observation(first, "3", [], 1, True)
                    context = Context("c", context.prompt, (Turn(first, seen),))
                    return await session.generate(context, SAMPLED, seed=1)

        assert asyncio.run(main()).token_ids
