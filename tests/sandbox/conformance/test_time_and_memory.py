"""Cells that take too long or too much."""

from __future__ import annotations

import time

import pytest

from tests.sandbox.conftest import Sandbox


def test_an_endless_loop_is_interrupted_and_its_variables_survive(sandbox: Sandbox) -> None:
    runtime = sandbox.runtime()
    result = runtime.run("x = 5\nwhile True:\n    pass")
    assert result.kind == "timeout"
    assert "TimeoutError: the cell ran longer than 2 s" in result.text
    assert runtime.run("print(x)").text == "5\n"
    runtime.close()


SWALLOW = """
import time
while True:
    try:
        while True:
            time.sleep(0.01)
    except BaseException:
        pass
"""


@pytest.mark.parametrize(
    "code",
    [
        SWALLOW,
        "import signal\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\nwhile True: pass",
        "import signal\nsignal.setitimer(signal.ITIMER_REAL, 0)\nwhile True: pass",
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))\nwhile True: pass",
        "import re\nre.match(r'(a+)+$', 'a' * 40 + 'b')",
        "sys.settrace(lambda *a: None)\nint('9' * 4000) ** 10**7",
    ],
    ids=["swallowed", "ignored", "disarmed", "blocked", "regex", "power"],
)
def test_what_ignores_the_interrupt_is_killed(sandbox: Sandbox, code: str) -> None:
    runtime = sandbox.runtime()
    result = runtime.run(code)
    assert result.kind in ("timeout", "killed_timeout")
    assert runtime.alive == (result.kind == "timeout")
    runtime.close()


def test_a_killed_runtime_says_so_ever_after(sandbox: Sandbox) -> None:
    runtime = sandbox.runtime()
    started = time.monotonic()
    assert runtime.run(SWALLOW).kind == "killed_timeout"
    assert time.monotonic() - started >= 2.5  # 2 s and half a second of grace
    assert not runtime.alive
    assert runtime.run("print(1)").kind == "killed_timeout"


def test_a_thread_left_spinning_does_not_hold_up_the_next_cell(sandbox: Sandbox) -> None:
    runtime = sandbox.runtime()
    spin = "import threading\ndef spin():\n    while True: pass\n"
    assert runtime.run(spin + "threading.Thread(target=spin, daemon=True).start()").kind == "ok"
    assert runtime.run("print('next')").text == "next\n"
    runtime.close()


def test_a_runtime_stands_still_between_cells(sandbox: Sandbox) -> None:
    runtime = sandbox.runtime()
    count = "import threading\nn = 0\ndef count():\n    global n\n    while True: n += 1\n"
    runtime.run(count + "threading.Thread(target=count, daemon=True).start()")
    first = runtime.run("import time; a = n; time.sleep(0.05); b = n; print(b - a)")
    between = int(first.text)
    time.sleep(0.5)
    gained = int(runtime.run("print(n - b)").text)
    runtime.close()
    assert gained < 5 * between  # ten times as long, had it run


@pytest.mark.parametrize(
    "code", ["np.ones(2**33)", "x = []\nwhile True:\n    x.append(bytes(2**24))"]
)
def test_too_much_memory_is_an_error_and_the_next_cell_works(sandbox: Sandbox, code: str) -> None:
    runtime = sandbox.runtime()
    result = runtime.run(code)
    assert (result.kind, "MemoryError" in result.text) == ("error", True)
    assert runtime.run("x = 0; print('still here')").text == "still here\n"
    runtime.close()


def test_an_enormous_image_is_an_error(sandbox: Sandbox) -> None:
    result = sandbox.run("Image.new('RGB', (60000, 60000))")
    assert result.kind == "error"


def test_threads_are_bounded(sandbox: Sandbox) -> None:
    bomb = (
        "import threading\nstop = threading.Event()\n"
        "for _ in range(5000):\n    threading.Thread(target=stop.wait, daemon=True).start()"
    )
    result = sandbox.run(bomb)
    assert (result.kind, "can't start new thread" in result.text) == ("error", True)


def test_a_storm_of_threads_with_small_stacks_ends(patient_sandbox: Sandbox) -> None:
    storm = (
        "import threading, time\nthreading.stack_size(32768)\n"
        "while True:\n    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    )
    result = patient_sandbox.run(storm)
    assert result.kind in ("error", "killed_memory")  # the kernel counts, or the fork server
    assert "can't start new thread" in result.text or "threads" in result.text
    assert patient_sandbox.run("print('next')").text == "next\n"
