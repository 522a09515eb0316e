"""Who outlives whom, and what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from PIL import Image

from pyvision_rl.errors import SandboxError
from pyvision_rl.sandbox import SandboxConfig, SandboxPool, wire
from pyvision_rl.sandbox import runtime as runtime_module
from pyvision_rl.sandbox.confine.privileges import MAX_DESCRIPTORS
from tests.sandbox.conftest import Sandbox

CONFIG = SandboxConfig(timeout_s=5.0)


def descendants(since: set[int] | None = None) -> list[psutil.Process]:
    """Processes below this one that were not among `since`, parents before children."""
    found = psutil.Process().children(recursive=True)
    return [child for child in found if child.pid not in (since or set())]


def pids() -> set[int]:
    return {child.pid for child in descendants()}


def wait_until_gone(processes: list[int], seconds: float) -> list[int]:
    """Those still alive after `seconds`."""
    deadline = time.monotonic() + seconds
    while (alive := [pid for pid in processes if is_running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    return alive


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


PARENT = """
import asyncio, psutil, sys
from pyvision_rl.sandbox import SandboxConfig, SandboxPool
from pyvision_rl.sandbox import runtime as runtime_module
from pyvision_rl.sandbox import wire
from pyvision_rl.sandbox.confine.privileges import MAX_DESCRIPTORS

async def main():
    async with SandboxPool(SandboxConfig()) as pool:
        runtimes = [pool.runtime() for _ in range(4)]
        for runtime in runtimes[1:]:
            await runtime.run("x = 1")
        busy = asyncio.create_task(runtimes[0].run("import time; time.sleep(60)"))
        await asyncio.sleep(0.3)
        print(*[child.pid for child in psutil.Process().children(recursive=True)], flush=True)
        await busy

asyncio.run(main())
"""


def test_when_the_parent_is_killed_everything_goes(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert parent.stdout is not None
    processes = [int(word) for word in parent.stdout.readline().split()]
    assert len(processes) == 6  # keeper, fork server, four runtimes
    parent.kill()
    parent.wait()
    assert wait_until_gone(processes, 1.0) == []
    time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("delay_s", [0.5, 1.0])
def test_a_parent_killed_while_its_server_starts_leaves_nothing(
    tmp_path: Path, delay_s: float
) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], env=environment, stdout=subprocess.DEVNULL
    )
    while not list(tmp_path.iterdir()) and parent.poll() is None:
        time.sleep(0.002)
    time.sleep(delay_s)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30  # the server may still be importing
    while list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_fork_server_is_replaced_and_its_trajectories_are_lost() -> None:
    async def scenario() -> None:
        before = pids()
        async with SandboxPool(CONFIG) as pool:
            _, server = descendants(since=before)
            runtime, waiting = pool.runtime(), pool.runtime()
            assert (await runtime.run("x = 1")).kind == "ok"
            slow = asyncio.create_task(waiting.run("import time; time.sleep(5)"))
            await asyncio.sleep(0.3)
            server.kill()
            assert (await slow).kind == "sandbox_lost"
            assert (await runtime.run("print(x)")).kind == "sandbox_lost"
            assert not runtime.alive
            fresh = await pool.runtime().run("print('again')")
            assert (fresh.kind, fresh.text) == ("ok", "again\n")

    asyncio.run(scenario())


def test_a_killed_runtime_process_is_reported(sandbox: Sandbox) -> None:
    before = pids()
    runtime = sandbox.runtime()
    runtime.run("x = 1")
    (process,) = descendants(since=before)
    process.send_signal(signal.SIGKILL)
    wait_until_gone([process.pid], 2.0)
    assert runtime.run("print(x)").kind == "killed_memory"
    assert not runtime.alive
    runtime.close()


def test_a_cancelled_cell_takes_its_runtime_with_it() -> None:
    async def scenario() -> None:
        async with SandboxPool(CONFIG) as pool:
            runtime = pool.runtime()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await runtime.run("import time; time.sleep(4)")
            assert not runtime.alive
            assert (await pool.runtime().run("print(1)")).text == "1\n"

    asyncio.run(scenario())


def test_a_runtime_closed_before_its_cell_begins_leaves_no_process() -> None:
    async def scenario() -> None:
        async with SandboxPool(SandboxConfig(timeout_s=5.0, max_running=1)) as pool:
            await pool.runtime().run("x = 1")
            before = pids()
            busy, waiting = pool.runtime(), pool.runtime()
            first = asyncio.create_task(busy.run("while True: pass"))
            second = asyncio.create_task(waiting.run("x = 1"))
            await asyncio.sleep(0.3)
            await waiting.close()  # it waits for the place of the first
            await busy.close()
            assert [(await ended).kind for ended in (first, second)] == ["dead", "dead"]
            assert wait_until_gone(list(pids() - before), 2.0) == []
            starting = pool.runtime()
            third = asyncio.create_task(starting.run("x = 1"))
            while not pids() - before:
                await asyncio.sleep(0.001)
            await starting.close()
            assert (await third).kind in ("ok", "dead")
            assert wait_until_gone(list(pids() - before), 2.0) == []

    asyncio.run(scenario())


def test_a_runtime_closed_while_its_cell_runs_leaves_others_alone() -> None:
    """The descriptor that it had is the next one's."""

    async def scenario() -> None:
        async with SandboxPool(SandboxConfig(timeout_s=30.0, max_running=2)) as pool:
            closed = pool.runtime()
            running = asyncio.create_task(closed.run("while True: pass"))
            await asyncio.sleep(0.5)
            await closed.close()
            assert (await pool.runtime().run("print(1)")).text == "1\n"
            assert (await running).kind == "dead"

    asyncio.run(scenario())


def test_a_runtime_that_cannot_start_is_not_the_cells_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runtime_module, "OPEN_TIMEOUT_S", 0.3)

    async def scenario() -> None:
        before = pids()
        async with SandboxPool(CONFIG) as pool:
            _, server = descendants(since=before)
            server.suspend()
            try:
                result = await pool.runtime().run("x = 1")
            finally:
                server.resume()
            assert (result.kind, "cell" in result.text) == ("sandbox_lost", False)

    asyncio.run(scenario())


def test_without_a_free_descriptor_a_runtime_is_lost_at_once() -> None:
    async def scenario() -> None:
        async with SandboxPool(CONFIG) as pool:
            await pool.runtime().run("x = 1")
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            taken = [os.open(os.devnull, os.O_RDONLY)]
            try:
                most = psutil.Process().num_fds() + 50
                resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
                with contextlib.suppress(OSError):
                    while True:
                        taken.append(os.dup(taken[0]))
                for descriptor in taken[-2:]:  # its channel fits in, its process descriptor not
                    os.close(descriptor)
                del taken[-2:]
                async with asyncio.timeout(20):
                    result = await pool.runtime().run("x = 1")
            finally:
                for descriptor in taken:
                    os.close(descriptor)
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            assert result.kind == "sandbox_lost"
            assert (await pool.runtime().run("print(1)")).text == "1\n"

    asyncio.run(scenario())


@pytest.mark.parametrize("room", [0, 1], ids=["for the channel", "for the process"])
def test_a_fork_server_without_a_free_descriptor_loses_one_runtime(room: int) -> None:
    async def scenario() -> None:
        before = pids()
        async with SandboxPool(CONFIG, without=["namespaces"]) as pool:
            assert (await pool.runtime().run("x = 1")).kind == "ok"
            server, count = descendants(since=before)[1], len(descendants(since=before))
            limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
            taken = set(map(int, os.listdir(f"/proc/{server.pid}/fd")))
            most = min(set(range(len(taken) + 1)) - taken) + room
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (most, limits[1]))
            try:
                lost = [await pool.runtime().run("x = 1") for _ in range(3)]
            finally:
                resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
            assert [result.kind for result in lost] == ["sandbox_lost"] * 3
            assert "Too many open files" in lost[0].text
            assert len(descendants(since=before)) == count
            # The second slot of this server: what was lost gave its own back.
            fresh = await pool.runtime().run("print(os.path.basename(os.getcwd()))")
            assert fresh.text == "scratch-1\n"

    asyncio.run(scenario())


def test_a_closed_pool_refuses() -> None:
    async def scenario() -> None:
        pool = SandboxPool(CONFIG)
        async with pool:
            runtime = pool.runtime()
            await runtime.run("x = 1")
        assert not runtime.alive
        assert (await runtime.run("x")).kind == "dead"
        assert (await pool.runtime().run("x")).kind == "sandbox_lost"
        with pytest.raises(SandboxError, match="closed"):
            await pool.server()

    asyncio.run(scenario())


def churn(num_runtimes: int, folder: Path) -> None:
    async def scenario() -> None:
        others = pids()
        async with SandboxPool(SandboxConfig(max_running=4)) as pool:

            async def one() -> None:
                async with pool.runtime(images=[Image.new("RGB", (8, 8))]) as runtime:
                    assert (await runtime.run("print(image_clue_0.size)")).text == "(8, 8)\n"

            await one()
            process, (_, server) = psutil.Process(), descendants(since=others)
            before = (process.num_fds(), server.num_fds(), pids())
            for _ in range(num_runtimes // 20):
                await asyncio.gather(*[one() for _ in range(20)])
            assert (process.num_fds(), server.num_fds(), pids()) == before

    before_all = pids()
    tempfile.tempdir = str(folder)
    try:
        asyncio.run(scenario())
    finally:
        tempfile.tempdir = None
    assert list(folder.iterdir()) == []
    assert pids() == before_all


def test_nothing_leaks_over_many_runtimes(tmp_path: Path) -> None:
    churn(100, tmp_path)


@pytest.mark.slow
def test_nothing_leaks_over_ten_thousand_runtimes(tmp_path: Path) -> None:
    churn(10_000, tmp_path)


def test_an_error_of_the_pools_own_loses_one_runtime_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(*_: object) -> None:
        raise ZeroDivisionError("of the pool")

    async def scenario() -> None:
        async with SandboxPool(SandboxConfig()) as pool:
            with monkeypatch.context() as patch:
                patch.setattr(wire, "check_reply", breaks)
                lost = await pool.runtime().run("x = 1")
            assert lost.kind == "sandbox_lost"
            assert "ZeroDivisionError" in lost.text
            assert (await pool.runtime().run("print(2)")).text == "2\n"

    asyncio.run(scenario())
    assert "an error of the pool's own" in caplog.text


def test_more_runtimes_live_than_one_may_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def scenario() -> None:
        async with SandboxPool(SandboxConfig()) as pool:
            runtimes = [pool.runtime() for _ in range(MAX_DESCRIPTORS + 44)]
            kinds = Counter([(await runtime.run("x = 1")).kind for runtime in runtimes])
            assert kinds == {"ok": 300}

    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_DESCRIPTORS, hard))  # of this process too
    try:
        asyncio.run(scenario())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many_runtimes_share_few_slots() -> None:
    async def scenario() -> None:
        async with SandboxPool(SandboxConfig(max_running=2)) as pool:
            runtimes = [pool.runtime(seed=k) for k in range(64)]
            code = "import time; t = time.monotonic(); time.sleep(0.01); print(t, time.monotonic())"
            results = await asyncio.gather(*[runtime.run(code) for runtime in runtimes])
            spans = [tuple(map(float, result.text.split())) for result in results]
            for start, _ in spans:
                assert sum(a <= start < b for a, b in spans) <= 2

    asyncio.run(scenario())
