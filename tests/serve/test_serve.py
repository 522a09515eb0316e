"""The agent behind a chat server, asked by a real HTTP client."""

import asyncio
import base64
import gc
import io
import json
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field

import av
import httpx
import pytest
import uvicorn
from PIL import Image

from pyvision_rl.errors import ConfigError, InputError
from pyvision_rl.model.scripted import ScriptedEngine
from pyvision_rl.rollout import episode
from pyvision_rl.rollout.episode import Agent, RolloutConfig
from pyvision_rl.sandbox import SandboxConfig, SandboxPool
from pyvision_rl.serve import question
from pyvision_rl.serve.app import AgentServer, ServeLimits
from pyvision_rl.serve.stage import LOCAL, ServeConfig, hosts_for
from tests.http import unused_address

CONFIG = RolloutConfig(prompt="brief", max_tool_calls=2, max_tokens=4000)
LOOK = (
    "look\n<code>\n```python\nprint(image_clue_0.size, len(image_clue_0.getbands()))\n```\n</code>"
)
ANSWER = "It is 7.\n<answer>\n\\boxed{7}\n</answer>"


def look_then_answer(context) -> str:
    return ANSWER if context.turns else LOOK


@dataclass
class Script:
    """What the agent writes, how long it thinks, and what became of its sessions."""

    write: object = look_then_answer
    think_s: float = 0.0
    contexts: list = field(default_factory=list)
    params: list = field(default_factory=list)
    num_open: int = 0
    max_open: int = 0
    num_cancelled: int = 0


@dataclass(frozen=True)
class ThinkingEngine:
    """A scripted engine that takes its time, so that clients can leave and others must wait."""

    inner: ScriptedEngine
    script: Script

    def session(self):
        return self

    async def __aenter__(self):
        self.script.num_open += 1
        self.script.max_open = max(self.script.max_open, self.script.num_open)
        return self

    async def __aexit__(self, *error):
        self.script.num_open -= 1

    async def generate(self, context, params, *, seed):
        self.script.contexts.append(context)
        self.script.params.append(params)
        try:
            await asyncio.sleep(self.script.think_s)
        except asyncio.CancelledError:
            self.script.num_cancelled += 1
            raise
        return await self.inner.generate(context, params, seed=seed)


@contextmanager
def serving(codec, script, limits, hosts=("*",)):
    """The base address of an agent server in a thread of its own, pool included."""
    address = unused_address()
    host, port = address.removeprefix("http://").split(":")
    stop, ready = threading.Event(), threading.Event()

    async def main():
        pool_config = SandboxConfig(isolation="best_effort", figures="pixels")
        async with SandboxPool(pool_config) as pool:
            inner = ScriptedEngine(codec, lambda context: script.write(context))
            agent = Agent(ThinkingEngine(inner, script), codec, pool, CONFIG)
            app = AgentServer(agent, "agent", limits).app(hosts)
            server = uvicorn.Server(
                uvicorn.Config(app, host=host, port=int(port), log_level="error")
            )
            running = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.01)
            ready.set()
            await asyncio.to_thread(stop.wait)
            server.should_exit = True
            await running

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert ready.wait(60)
    yield address
    stop.set()
    thread.join()


@pytest.fixture(scope="module")
def stage(codec):
    script = Script()
    limits = ServeLimits(max_running=2, max_waiting=1, max_body_mb=1)
    with serving(codec, script, limits) as address, httpx.Client(base_url=address) as client:
        yield script, client


@pytest.fixture
def script(stage):
    held = stage[0]
    held.__init__()
    return held


@pytest.fixture
def client(stage):
    return stage[1]


def data_url(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def picture(width=200, height=100) -> dict:
    url = data_url(Image.new("RGB", (width, height), "red"))
    return {"type": "image_url", "image_url": {"url": url}}


def asking(*content, **options) -> dict:
    return {"messages": [{"role": "user", "content": list(content)}], **options}


TEXT = {"type": "text", "text": "Which digit?"}
CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}


def wait_until(fact) -> None:
    for _ in range(500):
        if fact():
            return
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def test_the_tool_loop_is_inside(script, client):
    reply = client.post(CHAT, json=asking(picture(), TEXT)).json()
    assert reply["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "7"},
            "finish_reason": "stop",
        }
    ]
    assert reply["object"] == "chat.completion"
    assert reply["pyvision"] | {"num_visual_tokens": 0} == {
        "stop": "answered",
        "num_tool_calls": 1,
        "num_visual_tokens": 0,
    }
    usage = reply["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert "(200, 100) 3" in script.contexts[1].turns[0].observation.text
    assert client.get("/v1/models").json()["data"][0]["id"] == "agent"
    assert client.get("/health").json() == {"status": "ok", "num_admitted": 0}


def test_the_trajectory_on_request(script, client):
    body = asking(picture(), TEXT, pyvision={"trajectory": True})
    first, last = client.post(CHAT, json=body).json()["pyvision"]["trajectory"]
    assert "image_clue_0.size" in first["code"]
    assert "(200, 100)" in first["observation"]
    assert first["ok"]
    assert (last["completion"], last["observation"]) == (ANSWER, None)


def test_streaming(script, client):
    events = []
    with client.stream("POST", CHAT, json=asking(picture(), TEXT, stream=True)) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [line[6:] for line in response.iter_lines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    thought = "".join(delta.get("reasoning_content", "") for delta in deltas)
    assert thought.startswith(LOOK)
    assert "(200, 100) 3" in thought
    assert thought.endswith(ANSWER)
    assert "".join(delta.get("content", "") for delta in deltas) == "7"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"]["completion_tokens"] > 0
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_sampling_of_the_request(script, client):
    body = asking(TEXT, temperature=0.25, top_p=0.5, top_k=3, max_tokens=77)
    client.post(CHAT, json=body)
    params = script.params[0]
    assert (params.temperature, params.top_p, params.top_k) == (0.25, 0.5, 3)
    assert params.max_tokens == 77


def test_sampling_that_would_break_the_batch_for_everyone(script, client):
    """Logits divided by 1e-40 are infinite; clients ask for such numbers and mean greedy."""
    client.post(CHAT, json=asking(TEXT, temperature=1e-40))
    client.post(CHAT, json=asking(TEXT, temperature=0.01))
    assert {params.temperature for params in script.params} == {0.0, 0.01}


@pytest.mark.parametrize("stop", ["see", ["none", "see", "I"]])
def test_a_stop_string_is_not_in_the_reply(script, client, stop):
    """Of what the client gets: inside an episode it would cut programs."""
    script.write = lambda context: "First I see."
    body = asking(TEXT, stop=stop)
    wanted = "First I " if stop == "see" else "First "
    reply = client.post(CHAT, json=body).json()["choices"][0]
    assert (reply["message"]["content"], reply["finish_reason"]) == (wanted, "stop")
    events = client.post(CHAT, json={**body, "stream": True}).text.splitlines()
    chunks = [json.loads(line[6:]) for line in events if line.startswith("data: {")]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content", "") for delta in deltas) == wanted


def test_what_clients_send_beside(script, client):
    """OpenAI's interface allows null for each; `logprobs` false is what many send."""
    nothing = {"stream": None, "n": None, "stop": None, "logprobs": False, "seed": None}
    assert client.post(CHAT, json=asking(TEXT, **nothing)).status_code == 200
    (model,) = client.get("/v1/models").json()["data"]
    assert (model["object"], model["owned_by"]) == ("model", "pyvision-rl")
    assert isinstance(model["created"], int)


def test_media_are_read_beside_the_loop(script, client, monkeypatch):
    """A photograph takes a second to decode, which no other client should wait for."""
    threads = []
    for place in (question, episode):
        load = place.load_image
        monkeypatch.setattr(
            place,
            "load_image",
            lambda path, load=load: threads.append(threading.current_thread().name) or load(path),
        )
    assert client.post(CHAT, json=asking(picture(), TEXT)).status_code == 200
    assert len(threads) == 2
    assert all(name.startswith("asyncio_") for name in threads)


def test_few_tokens_of_a_harness_are_raised(codec):
    """lmms-eval asks for 16, which would cut an agent in the midst of its first program."""
    script = Script()
    with serving(codec, script, ServeLimits(min_completion_tokens=200)) as address:
        for asked in (16, 300):
            httpx.post(address + CHAT, json=asking(TEXT, max_tokens=asked))
        refused = httpx.post(address + CHAT, json=asking(TEXT, max_tokens=-5))
    assert {params.max_tokens for params in script.params} == {200, 300}
    assert "max_completion_tokens: -5, must be at least 1" in refused.json()["error"]["message"]


def test_a_stream_says_whose_fault_it_is(client):
    broken = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}
    reply = client.post(CHAT, json=asking(broken, TEXT, stream=True))
    error = next(json.loads(line[6:]) for line in reply.text.splitlines() if '"error"' in line)
    assert error["error"]["message"] == "image 0: not a readable image"
    assert error["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("stream", [False, True])
def test_a_fault_of_the_servers_own_is_said_in_the_same_form(script, client, stream, caplog):
    def fail(context) -> str:
        raise RuntimeError("the secret path /root/x")

    script.write = fail
    reply = client.post(CHAT, json=asking(TEXT, stream=stream))
    assert reply.status_code == (200 if stream else 500)
    lines = reply.text.splitlines()
    body = next(line[6:] for line in lines if '"error"' in line) if stream else reply.text
    error = json.loads(body)["error"]
    assert error["type"] == "server_error"
    assert error["message"] == "the episode failed; the server's log says why"
    assert "the secret path" in caplog.text
    assert not stream or "data: [DONE]" in lines
    assert client.get("/health").json()["num_admitted"] == 0


def test_several_images_and_earlier_messages(script, client):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [picture(), TEXT]},
        {"role": "assistant", "content": "Seven."},
        {"role": "user", "content": [{"type": "text", "text": "And here? "}, picture(30, 60)]},
    ]
    client.post(CHAT, json={"messages": messages})
    prompt = script.contexts[0].prompt
    assert len(prompt.images) == 2
    for text in (
        "System: Be brief.\n\nUser: Which digit?\n\nAssistant: Seven.\n\n",
        "User: And here? <image_clue_1>",
        "image_clue_1 is 30 x 60",
    ):
        assert text in prompt.text


def clip_url(folder) -> str:
    """A clip of 12 grey frames as a data URL."""
    path = folder / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=12)
        stream.width = stream.height = 64
        for level in range(12):
            frame = av.VideoFrame.from_image(Image.new("RGB", (64, 64), (level * 20,) * 3))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()


def test_a_video_is_in_the_runtime_only(script, client, tmp_path):
    code = "print(len(video_clue_0), video_clue_0[0].asnumpy().shape)"
    script.write = lambda context: (
        ANSWER if context.turns else f"<code>\n```python\n{code}\n```\n</code>"
    )
    video = {"type": "video_url", "video_url": {"url": clip_url(tmp_path)}}
    reply = client.post(CHAT, json=asking(video, TEXT, pyvision={"trajectory": True})).json()
    assert "12 (64, 64, 3)" in reply["pyvision"]["trajectory"][0]["observation"]
    assert reply["pyvision"]["num_visual_tokens"] == 0
    assert reply["choices"][0]["message"]["content"] == "7"


def test_an_agent_that_just_replies_and_one_that_is_cut(script, client):
    script.write = lambda context: "Hello!"
    choice = client.post(CHAT, json=asking(TEXT)).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hello!", "stop")
    script.write = lambda context: LOOK
    choice = client.post(CHAT, json=asking(picture(), TEXT)).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "length")


def test_special_tokens_of_a_client_are_only_text(script, client, codec):
    text = {"type": "text", "text": "<|im_end|><|image_pad|><image>?"}
    assert client.post(CHAT, json=asking(text)).status_code == 200
    prompt = script.contexts[0].prompt
    assert prompt.token_ids.count(codec.image_pad_id) == 0
    assert prompt.images == ()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "request: Object missing required field `messages`"),
        ({"messages": []}, "messages: must hold at least one"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]: must have a role of"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "the last must be 'user'"),
        (asking({"type": "audio"}), "messages[0].content[0]: type 'audio'; there are text"),
        (asking({"type": "text", "text": " "}), "messages[0]: has no text"),
        (
            asking(TEXT, temperature="hot"),
            "Expected `float | null`, got `str` - at `$.temperature`",
        ),
        (asking(TEXT, temperature=-1), "temperature and top_k must not be negative"),
        (asking(TEXT, n=2), "n = 2; only 1 is supported"),
        (
            asking({"type": "image_url", "image_url": {"url": "http://x/secret.png"}}, TEXT),
            "image 0: must be a data: URL",
        ),
        (
            asking({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}, TEXT),
            "image 0: must be a data: URL",
        ),
        (
            asking({"type": "image_url", "image_url": {"url": "data:image/png;base64,!!"}}, TEXT),
            "image 0: broken base64",
        ),
        (
            asking({"type": "image_url", "image_url": {"url": "data:x;base64,aGk="}}, TEXT),
            "image 0: not a readable image",
        ),
        (
            asking({"type": "image_url", "image_url": {"url": "data:x;base64,aGké"}}, TEXT),
            "image 0: broken base64",
        ),
        (asking({"type": "text", "text": None}), "messages[0].content[0]: text must be a string"),
        (asking(TEXT, logprobs=True), "logprobs are not told"),
        (asking(TEXT, top_k=10**30), "at `$.top_k`"),
        (asking(TEXT, stop=["x"] * 5), "at `$.stop`"),
        (asking(TEXT, stop=""), "at `$.stop`"),
    ],
)
def test_bad_requests_in_one_line(script, client, body, message):
    response = client.post(CHAT, json=body)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]
    assert client.get("/health").json()["num_admitted"] == 0


def test_a_body_that_is_too_large_or_no_json(script, client):
    assert (
        "over 1 MB"
        in client.post(CHAT, content=b"x" * 2**21, headers=JSON).json()["error"]["message"]
    )
    for broken in (b"{", b'{"messages": ' + b"[" * 100_000):
        assert client.post(CHAT, content=broken, headers=JSON).status_code == 400


def test_a_page_elsewhere_cannot_ask(script, client, codec):
    """A browser sends forms and plain text to any address, unasked; it asks before it sends JSON.
    By a name of its own that leads to this machine it would not even have to ask.
    """
    for header in ({"content-type": "text/plain"}, {}):
        response = client.post(CHAT, content=json.dumps(asking(TEXT)), headers=header)
        assert response.status_code == 415
        assert "content-type must be application/json" in response.json()["error"]["message"]
    assert script.contexts == []
    with serving(codec, script, ServeLimits(), hosts=LOCAL) as address:
        for path in (CHAT, "/health", "/v1/models"):
            assert httpx.get(address + path, headers={"host": "evil.test"}).status_code == 400
        reply = httpx.post(address + CHAT, json=asking(TEXT), headers={"host": "localhost:8100"})
        assert reply.status_code == 200
    assert hosts_for(ServeConfig(model="tiny")) == hosts_for(ServeConfig(model="tiny", host="::1"))
    assert hosts_for(ServeConfig(model="tiny", host="0.0.0.0")) == ("*",)
    keyed = ServeLimits(api_key_env="KEY")
    assert hosts_for(ServeConfig(model="tiny", limits=keyed)) == ("*",)


def test_many_images_that_are_large_together(script, client, monkeypatch):
    """A few kilobytes of a plain picture are hundreds of megabytes in memory."""
    monkeypatch.setattr(question, "MAX_PIXELS", 50_000)
    response = client.post(CHAT, json=asking(picture(), picture(), picture(), TEXT))
    assert response.status_code == 400
    assert "image 2: over 50,000 pixels together" in response.json()["error"]["message"]
    assert client.post(CHAT, json=asking(picture(), picture(), TEXT)).status_code == 200


def head_of(length: int) -> bytes:
    """The head of a request with a body of so many bytes."""
    lines = (f"POST {CHAT} HTTP/1.1", "host: x", "content-type: application/json")
    return "\r\n".join((*lines, f"content-length: {length}", "", "")).encode()


def test_a_body_that_never_comes_gives_its_place_back(codec):
    with serving(codec, Script(), ServeLimits(timeout_s=0.5)) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as slow:
            slow.sendall(head_of(9))
            slow.settimeout(60)
            assert slow.recv(100).startswith(b"HTTP/1.1 408")
        assert httpx.get(address + "/health").json()["num_admitted"] == 0


def test_concurrent_bounded_and_refusing_what_is_too_much(script, client):
    script.think_s, script.write = 0.4, lambda context: ANSWER
    address = str(client.base_url)

    async def ask_all(num):
        async with httpx.AsyncClient(base_url=address, timeout=60) as many:
            return await asyncio.gather(*(many.post(CHAT, json=asking(TEXT)) for _ in range(num)))

    responses = asyncio.run(ask_all(6))
    statuses = sorted(response.status_code for response in responses)
    assert statuses == [200, 200, 200, 429, 429, 429]
    refused = next(response for response in responses if response.status_code == 429)
    assert refused.headers["retry-after"] == "1"
    assert script.max_open == 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_its_episode(script, client, stream, caplog):
    script.think_s = 60

    async def ask_and_leave():
        async with httpx.AsyncClient(base_url=str(client.base_url)) as leaving:
            asked = asyncio.create_task(leaving.post(CHAT, json=asking(TEXT, stream=stream)))
            while not script.contexts:
                await asyncio.sleep(0.01)
            asked.cancel()
            await asyncio.wait({asked})

    asyncio.run(ask_and_leave())
    wait_until(lambda: script.num_cancelled == 1 and script.num_open == 0)
    wait_until(lambda: client.get("/health").json()["num_admitted"] == 0)
    script.think_s = 0
    assert client.post(CHAT, json=asking(picture(), TEXT)).status_code == 200
    gc.collect()
    assert "Task was destroyed" not in caplog.text


def test_a_key_and_a_time_limit(codec, monkeypatch):
    monkeypatch.setenv("AGENT_KEY", "secret")
    script = Script(think_s=30)
    limits = ServeLimits(api_key_env="AGENT_KEY", timeout_s=0.2)
    with serving(codec, script, limits) as address:
        assert httpx.post(address + CHAT, json=asking(TEXT)).status_code == 401
        key = {"Authorization": "Bearer secret"}
        response = httpx.post(address + CHAT, json=asking(TEXT), headers=key)
        assert response.status_code == 504
        assert response.json()["error"]["message"] == "the episode took too long"
    assert script.num_cancelled == 1


def test_configuration_errors(codec):
    with pytest.raises(ConfigError, match="port 0, must be from 1 to 65535"):
        ServeConfig(model="tiny", port=0)
    with pytest.raises(ConfigError, match=r"limits\.max_running: 0, must be at least 1"):
        ServeLimits(max_running=0)
    with pytest.raises(ConfigError, match="timeout_s must be positive"):
        ServeLimits(timeout_s=0)
    with pytest.raises(InputError, match="the environment has no MISSING_KEY"):
        AgentServer(None, "x", ServeLimits(api_key_env="MISSING_KEY"))  # type: ignore[arg-type]
