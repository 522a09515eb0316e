"""The chat engine and the token engine against real local servers."""

import asyncio
import base64
import io
import math
from dataclasses import dataclass, field, replace

import httpx
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from pyvision_rl.errors import ConfigError, PyVisionError
from pyvision_rl.model.engine import SamplingParams
from pyvision_rl.model.images import PixelLimits, fit_image, num_visual_tokens
from pyvision_rl.model.server_client import ServerClient, retry_after_s
from pyvision_rl.model.server_config import ServerConfig
from pyvision_rl.model.server_engine import ServerEngine, restore_stop
from pyvision_rl.model.vllm_engine import VLLMEngine, image_runs
from pyvision_rl.preflight.served import check_served
from pyvision_rl.types import Context, Turn
from tests.http import ChatServer, served, unused_address
from tests.model.play import picture

PARAMS = SamplingParams(max_tokens=50, temperature=0.5, top_k=20)
LIMITS = PixelLimits(784, 28224)
"""Those of the codec of the tests."""
PLAIN = SamplingParams(max_tokens=50, temperature=0.5)
CALL = "look\n<code>\n```python\nprint(1)\n```\n</code>"


def config_of(address, **options) -> ServerConfig:
    return replace(ServerConfig(url=f"{address}/v1", backoff_s=0.001), **options)


def complete(config, codec, contexts, params=PARAMS, engine=ServerEngine):
    async def main():
        async with ServerClient(config) as client:

            async def one(context):
                async with engine(client, codec).session() as session:
                    return await session.generate(context, params, seed=7)

            return await asyncio.gather(*map(one, contexts))

    return asyncio.run(main())


@pytest.fixture
def chat():
    return ChatServer()


@pytest.fixture
def address(chat):
    with served(chat.app()) as url:
        yield url


def decoded(part) -> Image.Image:
    head, data = part["image_url"]["url"].split(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_a_conversation_as_messages(chat, address, codec):
    prompt = codec.prompt("which <digit>?", [picture(1, 84, 56)])
    chat.write = lambda messages: CALL if len(messages) == 2 else "I see 7"
    (first,) = complete(config_of(address), codec, [Context("t", prompt)])
    shown = codec.observation(first, "1", [picture(2), picture(3)], 1, True)
    grown = Context("t", prompt, (Turn(first, shown, "print(1)"),))
    (second,) = complete(config_of(address), codec, [grown])
    assert (first.text, first.finish) == (CALL, "stop")
    assert second.text == "I see 7"
    system, user, assistant, seen = chat.bodies[-1]["messages"]
    assert system == {"role": "system", "content": "You are a helpful assistant."}
    assert assistant == {"role": "assistant", "content": CALL}
    kinds = [part["type"] for part in user["content"]]
    assert kinds == ["text", "image_url", "text"]
    assert user["content"][0]["text"] == "<image_clue_0>"
    assert user["content"][2]["text"] == "</image_clue_0>\n\nwhich <digit>?"
    assert decoded(user["content"][1]).tobytes() == prompt.images[0].tobytes()
    assert [part["type"] for part in seen["content"]].count("image_url") == 2
    whole = "".join(part.get("text", "<image>") for part in seen["content"])
    assert whole == shown.text
    assert chat.bodies[-1]["model"] == "served-model"
    assert chat.bodies[-1]["stop"] == ["</code>"]
    assert (chat.bodies[-1]["top_k"], chat.bodies[-1]["temperature"]) == (20, 0.5)


def test_text_alone_is_sent_as_text_and_top_k_only_where_asked(chat, address, codec):
    context = Context("t", codec.prompt("hi", []))
    complete(config_of(address), codec, [context], replace(PARAMS, top_k=0))
    assert chat.bodies[0]["messages"][1] == {"role": "user", "content": "hi"}
    assert "top_k" not in chat.bodies[0]


def test_ids_are_the_codecs_reading_and_logprobs_are_unknown(chat, address, codec):
    contexts = [Context("t", codec.prompt("hi", []))]
    chat.write = lambda messages: CALL
    (call,) = complete(config_of(address), codec, contexts)
    assert codec.decode(call.token_ids) == CALL
    # Stopped at </code>: the end of the turn was not sampled, the observation adds it.
    assert call.token_ids[-1] != codec.end_of_turn_id
    chat.write = lambda messages: "done"
    (done,) = complete(config_of(address), codec, contexts)
    assert done.token_ids[-1] == codec.end_of_turn_id
    assert all(math.isnan(logprob) for logprob in (*call.logprobs, *done.logprobs))
    assert len(done.logprobs) == len(done.token_ids)


def test_a_server_that_runs_past_the_stop_is_cut_there(chat, address, codec):
    chat.keep_stop = True
    chat.write = lambda messages: CALL + "\n<interpreter>made up"
    (call,) = complete(config_of(address), codec, [Context("t", codec.prompt("hi", []))])
    assert call.text == CALL


def test_half_a_character_is_replaced(chat, address, codec):
    chat.write = lambda messages: "a \ud83d"
    (done,) = complete(config_of(address), codec, [Context("t", codec.prompt("hi", []))])
    assert done.text == "a ?"


def test_which_stop_string_ended_a_text():
    stop = ("</code>", "END")
    assert restore_stop({"stop_reason": "END", "finish_reason": "stop"}, "a", stop) == "aEND"
    assert restore_stop({"finish_reason": "stop"}, "<code>x", stop) == "<code>x</code>"
    assert restore_stop({"finish_reason": "length"}, "<code>x", stop) == "<code>x"
    assert restore_stop({"finish_reason": "stop"}, "x", stop) == "x"


def test_a_cut_completion(chat, address, codec):
    chat.write = lambda messages: "word " * 1000
    (cut,) = complete(config_of(address), codec, [Context("t", codec.prompt("hi", []))])
    assert cut.finish == "length"
    assert cut.token_ids[-1] != codec.end_of_turn_id


def test_a_context_too_long_for_the_server_ends_the_trajectory(chat, address, codec):
    chat.failures = [(400, "This model's maximum context length is 1024 tokens")]
    (full,) = complete(config_of(address), codec, [Context("t", codec.prompt("hi", []))])
    assert (full.token_ids, full.text, full.finish) == ((), "", "length")
    assert len(chat.bodies) == 1


def test_failures_that_pass_are_tried_again(chat, address, codec):
    chat.failures = [(503, "loading"), (429, "slow down"), (500, "oops")]
    (done,) = complete(config_of(address), codec, [Context("t", codec.prompt("hi", []))])
    assert done.text == "hello"
    assert len(chat.bodies) == 4
    # The same request each time, seed included.
    assert chat.bodies[0] == chat.bodies[3]


@pytest.mark.parametrize(
    ("failures", "options", "message", "num_requests"),
    [
        ([(400, "no such field")], {}, r"server http.*/chat/completions: status 400 no such", 1),
        ([(401, "no key")], {}, r"status 401 no key", 1),
        ([(500, "oops\nlong")] * 3, {"max_retries": 2}, r"gave up after 3 attempts: status 500", 3),
        ([(200, "plain text")], {}, r"reply is no json object: plain text", 1),
        ([(200, '{"choices": []}')], {}, r"a reply without choices", 1),
    ],
)
def test_one_clear_line(chat, address, codec, failures, options, message, num_requests):
    chat.failures = failures
    with pytest.raises(PyVisionError, match=message) as caught:
        complete(config_of(address, **options), codec, [Context("t", codec.prompt("hi", []))])
    assert "\n" not in str(caught.value)
    assert len(chat.bodies) == num_requests


def test_how_long_a_server_asks_to_wait():
    asked = ("3", "soon", "9999")
    waits = [retry_after_s(httpx.Response(429, headers={"retry-after": text})) for text in asked]
    assert waits == [3.0, 0.0, 60.0]


def test_a_dead_server(codec):
    config = config_of(unused_address(), max_retries=1, model="m")
    with pytest.raises(PyVisionError, match=r"gave up after 2 attempts: ConnectError"):
        complete(config, codec, [Context("t", codec.prompt("hi", []))])


def test_a_slow_server_runs_into_the_timeout(chat, address, codec):
    chat.delay_s = 30
    config = config_of(address, timeout_s=0.05, max_retries=0, model="m")
    with pytest.raises(PyVisionError, match="gave up after 1 attempts: ReadTimeout"):
        complete(config, codec, [Context("t", codec.prompt("hi", []))])


def test_requests_in_flight_are_bounded(chat, address, codec):
    chat.delay_s = 0.02
    contexts = [Context(str(n), codec.prompt("hi", [])) for n in range(12)]
    done = complete(config_of(address, max_in_flight=3, model="m"), codec, contexts)
    assert len(done) == 12
    assert chat.max_in_flight == 3


def test_an_address_without_v1(address):
    async def main():
        async with ServerClient(ServerConfig(url=address)) as client:
            await client.model()

    with pytest.raises(PyVisionError, match=r"404 Not Found; the address must go up to and with"):
        asyncio.run(main())


def test_configuration_errors():
    with pytest.raises(ConfigError, match=r"url = 'localhost:80'; must start with http"):
        ServerConfig(url="localhost:80")
    with pytest.raises(ConfigError, match="max_in_flight"):
        ServerConfig(url="http://x/v1", max_in_flight=0)


@dataclass
class TokenServer:
    """vLLM's two routes, as its 0.32 answers them: features of images, and sampled ids.

    Resizes to its own `limits`, as its image processor would. `mode` is its `--logprobs-mode`,
    `max_model_len` bounds what it renders.
    """

    token_ids: list[int]
    mode: str = "processed_logprobs"
    limits: PixelLimits = LIMITS
    max_model_len: int = 10_000
    bodies: list = field(default_factory=list)

    def app(self):
        return Starlette(
            routes=[
                Route("/v1/chat/completions/render", self.render, methods=["POST"]),
                Route("/inference/v1/generate", self.generate, methods=["POST"]),
            ]
        )

    async def render(self, request):
        body = await request.json()
        shown = [fit_image(decoded(part), self.limits) for part in body["messages"][0]["content"]]
        if sum(map(num_visual_tokens, shown)) > self.max_model_len:
            return JSONResponse({"error": "is longer than the maximum model length"}, 400)
        places = [{"offset": 3, "length": num_visual_tokens(image)} for image in shown]
        features = {
            "mm_hashes": {"image": [str(n) for n in range(len(shown))]},
            "mm_placeholders": {"image": places},
        }
        return JSONResponse({"features": features})

    async def generate(self, request):
        body = await request.json()
        self.bodies.append(body)
        bias = body["sampling_params"]["logit_bias"]
        forced = [int(token) for token, value in bias.items() if value > 0]
        token_ids = forced or self.token_ids
        content = [{"logprob": -0.25 * n} for n in range(len(token_ids))]
        if forced and self.mode == "raw_logprobs":
            content = [{"logprob": -40.0}]
        choice = {
            "token_ids": token_ids,
            "logprobs": {"content": content},
            "finish_reason": "stop",
        }
        return JSONResponse({"choices": [choice]})


def by_ids(server, codec, context, params=PLAIN, banned=()):
    """One completion of the token engine, the server looked at first."""

    async def main(url):
        async with ServerClient(config_of(url, model="m", pixels=codec.pixels)) as client:
            engine = VLLMEngine(client, codec, banned)
            await engine.check()
            async with engine.session() as session:
                return await session.generate(context, params, seed=7)

    with served(server.app()) as url:
        return asyncio.run(main(url))


def test_the_token_engine_sends_and_keeps_ids(codec):
    sampled, _ = codec.encode_completion("find the red tag")
    server = TokenServer(list(sampled))
    context = Context("t", codec.prompt("find", [picture(1, 84, 56), picture(2, 28, 56)]))
    done = by_ids(server, codec, context, banned=(codec.image_pad_id, 300))
    assert done.token_ids == sampled
    assert done.text == "find the red tag"
    assert done.logprobs == tuple(-0.25 * n for n in range(len(sampled)))
    body = server.bodies[-1]
    assert tuple(body["token_ids"]) == context.token_ids
    runs = body["features"]["mm_placeholders"]["image"]
    assert [run["length"] for run in runs] == [6, 2]  # 3 x 2 and 1 x 2 visual tokens
    for run in runs:
        ids = body["token_ids"][run["offset"] : run["offset"] + run["length"]]
        assert set(ids) == {codec.image_pad_id}
    assert body["sampling_params"]["include_stop_str_in_output"]
    assert body["sampling_params"]["logit_bias"] == {str(codec.image_pad_id): -100, "300": -100}


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        # 28 x 28 are enlarged by 2 to 56 x 56: four tokens for one.
        (PixelLimits(3136, 28224), "makes 4 tokens of an image of 28 x 28, 1 here"),
        # 168 x 168 are reduced by sqrt(2) to 118.8, rounded down to 112 a side: 16 for 36.
        (PixelLimits(784, 14112), "makes 16 tokens of an image of 168 x 168, 36 here"),
    ],
)
def test_a_server_that_resizes_images_otherwise_is_refused(codec, limits, said):
    """It would put embeddings of another size into the place of ours and answer from the noise."""
    with pytest.raises(PyVisionError) as error:
        by_ids(TokenServer([5], limits=limits), codec, Context("t", codec.prompt("find", [])))
    assert said in str(error.value)
    assert """--mm-processor-kwargs '{"min_pixels": 784, "max_pixels": 28224}'""" in str(
        error.value
    )


def test_every_image_of_a_context_is_compared(codec):
    context = Context("t", codec.prompt("find", [picture(1, 84, 56), picture(2, 28, 56)]))

    async def main(url):
        async with (
            ServerClient(config_of(url, model="m")) as client,
            VLLMEngine(client, codec, ()).session() as session,
        ):
            return await session.generate(context, PLAIN, seed=7)

    said = "makes 6 tokens of an image of 28 x 56, 2 here"
    server = TokenServer([5], limits=PixelLimits(3136, 28224))
    with served(server.app()) as url, pytest.raises(PyVisionError, match=said):
        asyncio.run(main(url))


def test_a_model_shorter_than_the_largest_image_passes(codec):
    """A trajectory that long ends as one; shorter ones can be played."""
    server = TokenServer([5], max_model_len=30)
    assert by_ids(server, codec, Context("t", codec.prompt("f", []))).token_ids == (5,)


@pytest.mark.parametrize("limit", [{"top_k": 20}, {"top_p": 0.9}])
def test_logprobs_of_a_cut_distribution_are_unknown(codec, limit):
    """vLLM's are of what top-k and top-p left; the contract's are of the whole distribution."""
    server = TokenServer([5, 6])
    params = replace(PLAIN, **limit)
    done = by_ids(server, codec, Context("t", codec.prompt("find", [])), params)
    assert len(done.logprobs) == 2
    assert all(math.isnan(logprob) for logprob in done.logprobs)
    greedy = replace(params, temperature=0.0)
    done = by_ids(server, codec, Context("t", codec.prompt("find", [])), greedy)
    assert done.logprobs == (0.0, -0.25)


def test_a_server_with_other_logprobs_is_refused(codec):
    with pytest.raises(PyVisionError, match="start it with --logprobs-mode processed_logprobs"):
        by_ids(TokenServer([5], mode="raw_logprobs"), codec, Context("t", codec.prompt("f", [])))


def test_a_dry_run_asks_it_too():
    config = ServerConfig(model="m", api="vllm", tokenizer="tiny", pixels=LIMITS)
    with served(TokenServer([5]).app()) as url:
        line = check_served(replace(config, url=f"{url}/v1"))
    assert line.endswith("serves m, by token ids")
    with (
        served(TokenServer([5], mode="raw_logprobs").app()) as url,
        pytest.raises(PyVisionError, match="start it with --logprobs-mode"),
    ):
        check_served(replace(config, url=f"{url}/v1"))


def test_a_server_without_token_ids_is_refused(codec, address):
    async def main():
        async with ServerClient(config_of(address, model="m")) as client:
            await VLLMEngine(client, codec, ()).check()

    with pytest.raises(PyVisionError, match=r"404 .*; must be a vLLM .*--enable-scale-out"):
        asyncio.run(main())


def test_runs_of_image_tokens():
    assert image_runs([1, 9, 9, 2, 9], 9) == [
        {"offset": 1, "length": 2},
        {"offset": 4, "length": 1},
    ]
