"""Both server engines against a real vLLM that serves the shipped base, on a CPU.

`make test-vllm` installs vLLM into an environment of its own and names its Python in VLLM_PYTHON.
"""

import asyncio
import json
import math
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path

import httpx
import pytest
import torch

from pyvision_rl.errors import PyVisionError
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.engine import SamplingParams
from pyvision_rl.model.hf_engine import EngineConfig, HFEngine
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.loading import never_written
from pyvision_rl.model.policy import Policy, PolicyConfig
from pyvision_rl.model.server_client import ServerClient
from pyvision_rl.model.server_config import ServerConfig
from pyvision_rl.model.server_engine import ServerEngine
from pyvision_rl.model.tiny import TINY_BASE
from pyvision_rl.model.vllm_engine import VLLMEngine
from pyvision_rl.rl.samples import make_sample
from pyvision_rl.rollout.agent import AgentConfig
from pyvision_rl.rollout.episode import RolloutConfig
from pyvision_rl.rollout.group import run_group
from pyvision_rl.rollout.server_agent import open_server_agent
from pyvision_rl.sandbox import SandboxConfig
from pyvision_rl.types import Observation, StopReason, Task, Trajectory
from tests.contracts.engine import GREEDY, EngineContract
from tests.model.play import picture, play

PYTHON = os.environ.get("VLLM_PYTHON", "")
PIXELS = PixelLimits(784, 28224)
START_S = 900
CPU_TORCH = Path(__file__).parents[1] / "sft" / "cpu_torch"
SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}

pytestmark = pytest.mark.skipif(not PYTHON, reason="no vLLM here: make test-vllm")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped base, but for the base of its vision positions: vLLM has 10,000 built in, that of
    every released Qwen2.5-VL, and reads none.
    """
    folder = tmp_path_factory.mktemp("model") / "base"
    shutil.copytree(TINY_BASE, folder)
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["rope_parameters"]["rope_theta"] = 10_000.0
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def address(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that runs as long as this file's tests do."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", str(base)),
        *("--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", "float32", "--max-model-len", "2048", "--max-num-seqs", "4"),
        *("--enforce-eager", "--limit-mm-per-prompt", '{"image": 8, "video": 0}'),
        *("--enable-scale-out", "--logprobs-mode", "processed_logprobs"),
        *("--mm-processor-kwargs", json.dumps(asdict(PIXELS))),
    ]
    loads = subprocess.run([PYTHON, "-c", "import torchvision"], capture_output=True, check=False)
    around = {"PYTHONPATH": str(CPU_TORCH)} if loads.returncode else {}
    folder = tmp_path_factory.mktemp("vllm")
    log = folder / "server.log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **SETTINGS, **around},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(url, server, log)
        yield url
    finally:
        server.terminate()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()


def wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and server.poll() is None:
        try:
            if httpx.get(f"{url}/health").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    pytest.fail(f"vLLM did not start; the end of its log:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def policy(base: Path) -> Policy:
    return Policy.load(PolicyConfig(str(base), PIXELS))


def config_of(address: str, policy: Policy) -> ServerConfig:
    return ServerConfig(
        f"{address}/v1",
        api="vllm",
        tokenizer=policy.config.model,
        pixels=PIXELS,
        timeout_s=600,
        max_retries=1,
    )


def logprobs_here(policy: Policy, trajectory: Trajectory, temperature: float) -> torch.Tensor:
    """What the learner's forward pass gives for the tokens that the server sampled."""
    sample = make_sample(trajectory, 0.0)
    mask = torch.tensor([sample.loss_mask])
    with torch.no_grad():
        logprobs, _ = policy.token_logprobs(
            torch.tensor([sample.token_ids]),
            torch.ones_like(mask),
            mask,
            sample.images,
            temperature,
        )
    return logprobs[mask.bool()]


def as_trajectory(context) -> Trajectory:
    task = Task("t", "?", "!")
    return Trajectory(task, context.prompt, context.turns, StopReason.MAX_TURNS, None)


class TestVLLMEngine(EngineContract):
    hottest = 2.0

    @pytest.fixture(autouse=True)
    def _server(self, address: str, policy: Policy) -> None:
        self.address, self.policy = address, policy

    @property
    def codec(self):
        return self.policy.codec

    @asynccontextmanager
    async def open_engine(self):
        banned = never_written(self.codec, self.policy.vocabulary_size)
        assert banned == self.policy.banned_ids
        async with ServerClient(config_of(self.address, self.policy)) as client:
            engine = VLLMEngine(client, self.codec, banned)
            await engine.check()
            yield engine

    @pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
    def test_its_logprobs_are_those_of_the_learner(self, temperature):
        params = SamplingParams(max_tokens=20, temperature=temperature)

        async def main():
            async with self.open_engine() as engine:
                return [
                    await play(engine, self.codec, seed, num_turns=4, params=params)
                    for seed in range(6)
                ]

        contexts = asyncio.run(main())
        assert sum(len(context.images) for context in contexts) >= 8
        for context in contexts:
            trajectory = as_trajectory(context)
            sampled = [lp for turn in context.turns for lp in turn.completion.logprobs]
            here = logprobs_here(self.policy, trajectory, temperature)
            assert len(sampled) >= 4
            assert torch.allclose(torch.tensor(sampled), here, rtol=0, atol=1e-4)

    def test_logprobs_under_top_k_are_unknown(self):
        """vLLM's own would be of the five tokens that are left; the learner's are of all."""
        params = SamplingParams(max_tokens=12, top_k=5, stop=())
        (done,) = self.run((self.context(picture(1)), params, 0))
        assert done.token_ids
        assert all(math.isnan(logprob) for logprob in done.logprobs)

    def test_other_limits_of_pixels_are_refused(self):
        pixels = PixelLimits(PIXELS.min_pixels, 4 * PIXELS.max_pixels)
        codec = ChatCodec(self.codec.tokenizer, pixels)

        async def main():
            async with ServerClient(config_of(self.address, self.policy)) as client:
                await VLLMEngine(client, codec, ()).check()

        with pytest.raises(PyVisionError, match=r"tokens of an image of .* --mm-processor-kwargs"):
            asyncio.run(main())

    def test_greedy_is_what_our_own_engine_writes(self):
        async def both():
            context = self.context(picture(1), picture(2, 84, 112))
            async with self.open_engine() as engine:
                served = await self.complete(engine, context, GREEDY, 0)
            async with HFEngine(self.policy, EngineConfig()) as engine:
                return served, await self.complete(engine, context, GREEDY, 0)

        served, own = asyncio.run(both())
        assert served.token_ids == own.token_ids
        assert served.logprobs == pytest.approx(own.logprobs, abs=1e-4)


def test_greedy_chat_is_what_our_own_engine_writes(address, policy):
    """The server renders the messages itself: equal texts say that it shows what our codec does."""

    async def both():
        codec = policy.codec
        async with ServerClient(replace(config_of(address, policy), api="chat")) as client:
            served = await play(ServerEngine(client, codec), codec, 4, params=GREEDY)
        async with HFEngine(policy, EngineConfig()) as engine:
            return served, await play(engine, codec, 4, params=GREEDY)

    served, own = asyncio.run(both())
    assert served.images
    assert [turn.completion.text.strip() for turn in served.turns] == [
        turn.completion.text.strip() for turn in own.turns
    ]


def test_a_group_of_episodes_by_token_ids(address, policy, tmp_path):
    """The whole agent: rollouts at the server, log-probs that the learner can train on."""
    path = tmp_path / "picture.png"
    picture(3, 168, 168).save(path)
    task = Task("t", "Which digit is on the red tag?", "7", (path,))
    config = AgentConfig(
        sandbox=SandboxConfig(isolation="best_effort", figures="pixels"),
        rollout=RolloutConfig(prompt="brief", max_tokens=600, max_completion_tokens=60),
    )

    async def main():
        async with open_server_agent(config_of(address, policy), config) as agent:
            return await run_group(agent, task, 4, seed=0)

    for trajectory in asyncio.run(main()):
        assert isinstance(trajectory.prompt, Observation)
        sampled = [lp for turn in trajectory.turns for lp in turn.completion.logprobs]
        here = logprobs_here(policy, trajectory, 1.0)
        assert torch.allclose(torch.tensor(sampled), here, rtol=0, atol=1e-4)
