"""The worker process: any thread may ask, and nothing asked can stop it for good."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pyvision_rl.errors import PyVisionError
from pyvision_rl.reward import symbolic
from pyvision_rl.reward.symbolic import SymbolicWorker


def test_bombs_end_the_worker_and_not_us() -> None:
    worker = SymbolicWorker()
    for bomb in ("10^{10^{10}}", "[[", "\0"):
        assert not worker.is_equal("\\pi", bomb)
        assert worker.is_equal("\\frac{1}{2}", "0.5")
    worker.close()


def test_threads_get_their_own_verdicts() -> None:
    worker = SymbolicWorker()
    pairs = [(f"{n}\\pi", f"{n + n % 2}\\pi") for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(worker.is_equal, *zip(*pairs, strict=True)))
    assert verdicts == [n % 2 == 0 for n in range(40)]
    worker.close()


def test_a_forked_child_starts_its_own() -> None:
    worker = SymbolicWorker()
    assert worker.is_equal("2\\pi", "\\pi + \\pi")
    child = os.fork()
    if child == 0:
        os._exit(0 if worker.is_equal("3\\pi", "\\pi + 2\\pi") else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert not worker.is_equal("2\\pi", "\\pi")
    worker.close()


def test_a_worker_killed_from_outside_costs_no_verdict() -> None:
    worker = SymbolicWorker()
    assert worker.is_equal("2\\pi", "\\pi + \\pi")
    process = worker._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert worker.is_equal("3\\pi", "\\pi + 2\\pi")
    worker.close()


def test_a_worker_that_cannot_start_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "worker.py"
    broken.write_text("raise SystemExit('no such module: math_verify')")
    monkeypatch.setattr(symbolic, "WORKER", broken)
    with pytest.raises(PyVisionError, match="does not start: no such module: math_verify"):
        SymbolicWorker().is_equal("1", "1")
