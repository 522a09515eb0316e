import asyncio
import os
import subprocess
import sys
import time

import pytest

from pyvision_rl.sandbox import SandboxConfig, SandboxPool
from pyvision_rl.sandbox import slots as slots_module
from pyvision_rl.sandbox.slots import Activity, Slots

ASLEEP = Activity(0.0, True)


@pytest.fixture(autouse=True)
def frequent_looks(monkeypatch):
    monkeypatch.setattr(slots_module, "CHECK_S", 0.01)


def test_a_sleeping_cell_does_not_hold_up_others() -> None:
    async def scenario() -> None:
        config = SandboxConfig(max_running=1, timeout_s=600)
        async with SandboxPool(config) as pool, pool.runtime() as sleeper, pool.runtime() as other:
            sleeping = asyncio.create_task(sleeper.run("import time; time.sleep(500)"))
            result = await other.run("print(6 * 7)")
            assert result.text == "42\n"
            assert not sleeping.done()
            sleeping.cancel()

    asyncio.run(scenario())


def test_a_place_is_lent_while_its_cell_waits_and_claimed_when_it_works() -> None:
    async def scenario() -> None:
        slots = Slots(1)
        doing = [ASLEEP]
        order: list[str] = []
        release = asyncio.Event()

        async def first() -> None:
            async with slots.hold(lambda: doing[0]):
                order.append("first")
                await release.wait()
            order.append("first ended")

        async def other(name: str) -> None:
            async with slots.hold(lambda: None):
                order.append(name)

        held = asyncio.create_task(first())
        await asyncio.sleep(0)
        await other("second")  # only possible in the place that the first one lent
        assert order == ["first", "second"]
        doing[0] = Activity(100.0, False)
        await asyncio.sleep(0.05)
        third = asyncio.create_task(other("third"))
        await asyncio.sleep(0.05)
        assert order == ["first", "second"]
        release.set()
        await asyncio.gather(held, third)
        assert order[2] == "first ended"
        assert order[3] == "third"

    asyncio.run(scenario())


def test_who_gives_up_waiting_leaves_the_place_to_others() -> None:
    async def scenario() -> None:
        slots = Slots(1)
        async with slots.hold(lambda: None):
            waiting = asyncio.create_task(_use(slots))
            await asyncio.sleep(0)
            waiting.cancel()
        await asyncio.wait_for(_use(slots), 60)

    asyncio.run(scenario())


async def _use(slots: Slots) -> None:
    async with slots.hold(lambda: None):
        pass


@pytest.mark.parametrize(
    ("code", "is_asleep"),
    [
        ("sum(range(10**7)); print(flush=True); input()", True),
        ("sum(range(10**7)); print(flush=True)\nwhile True: pass", False),
    ],
)
def test_activity_of_a_process(code: str, is_asleep: bool) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    pidfd = os.pidfd_open(process.pid)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        while (look := Activity.of(pidfd)) is None or look.is_asleep is not is_asleep:
            time.sleep(0.01)
        assert look.cpu_s > 0
    finally:
        process.kill()
        process.communicate()
        assert Activity.of(pidfd) is None
        os.close(pidfd)


def test_activity_of_a_process_whose_name_is_no_text() -> None:
    rename = "import ctypes; ctypes.CDLL(None).prctl(15, b'\\xff) S \\xfe')"
    code = rename + "; print(flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    pidfd = os.pidfd_open(process.pid)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        look = Activity.of(pidfd)
        assert look is not None
    finally:
        process.kill()
        process.communicate()
        os.close(pidfd)
