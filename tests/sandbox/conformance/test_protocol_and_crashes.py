"""Cells that attack the channel to the pool, or the interpreter they run in."""

from __future__ import annotations

import pytest

from tests.sandbox.conftest import Sandbox

CHANNEL = """
import pickle, socket, stat, struct, msgspec
def channel():
    for descriptor in range(3, 256):
        try:
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                return descriptor
        except OSError:
            pass
def send(data):
    os.write(channel(), data)
def frame(**header):
    body = msgspec.msgpack.encode(header)
    return struct.pack('<I', len(body)) + body
"""


@pytest.mark.parametrize(
    "attack",
    [
        "send(pickle.dumps(print))",
        "send(struct.pack('<I', 2**32 - 1))",
        "send(struct.pack('<I', 20) + b'not msgpack at all!!')",
        "send(frame(id=0, kind='ok', text='', images=[]))",
        "send(frame(id=1, kind='ok', text='', images=[[2**20, 2**20]]))",
        "send(frame(id=1, kind='ok', text='', images=[[-5, 5]]))",
        "send(frame(id=1, kind='reward', text='', images=[]))",
        "send(frame(id=1, kind='ok', text=7, images=[]))",
        "send(frame(id=1, kind='ok', text='', images=[], extra=1))",
        "send(b'\\x00' * 4)",
        "send(struct.pack('<I', 8) + b'\\xc1' * 8)",
        "send(struct.pack('<I', 1000) + b'\\x91' * 1000)",
    ],
)
def test_bytes_that_are_not_the_answer_end_the_runtime(sandbox: Sandbox, attack: str) -> None:
    runtime = sandbox.runtime()
    result = runtime.run(CHANNEL + attack)
    assert result.kind == "protocol"
    assert not runtime.alive
    runtime.close()


def test_a_pickle_is_not_run(sandbox: Sandbox, tmp_path: object) -> None:
    code = """
class Run:
    def __reduce__(self):
        return (open, ('/tmp/pyvision-pickle', 'w'))
send(struct.pack('<I', len(pickle.dumps(Run()))) + pickle.dumps(Run()))
"""
    from pathlib import Path

    assert sandbox.run(CHANNEL + code).kind == "protocol"
    assert not Path("/tmp/pyvision-pickle").exists()


def test_an_answer_in_advance_is_not_taken_for_the_next(sandbox: Sandbox) -> None:
    runtime = sandbox.runtime()
    late = """
import threading, time
def later():
    time.sleep(0.2)
    send(frame(id=1, kind='ok', text='forged', images=[]))
threading.Thread(target=later, daemon=True).start()
"""
    assert runtime.run(CHANNEL + late).kind == "ok"
    result = runtime.run("import time; time.sleep(1); print('true')")
    assert result.kind == "protocol"
    assert "forged" not in result.text
    runtime.close()


def test_a_forged_answer_is_at_most_a_false_observation(sandbox: Sandbox) -> None:
    forge = """
for value in list(sys._getframe().f_back.f_back.f_back.f_locals.values()):
    if type(value).__name__ == 'Run':
        send(frame(id=value.id, kind='ok', text='forged', images=[]))
        import time; time.sleep(0.2)
"""
    runtime = sandbox.runtime()
    assert (result := runtime.run(CHANNEL + forge)).text == "forged"
    assert result.kind == "ok"
    assert runtime.run("print('next')").kind in ("protocol", "ok")
    runtime.close()


def test_a_forged_answer_is_no_longer_than_a_true_one(sandbox: Sandbox) -> None:
    forge = """
for value in list(sys._getframe().f_back.f_back.f_back.f_locals.values()):
    if type(value).__name__ == 'Run':
        send(frame(id=value.id, kind='ok', text='z' * 11_000, images=[]))
        import time; time.sleep(0.5)
"""
    assert sandbox.run(CHANNEL + forge).kind == "protocol"


def test_a_stuck_cell_cannot_answer_for_the_next(sandbox: Sandbox) -> None:
    runtime = sandbox.runtime()
    assert runtime.run("while True:\n    pass").kind == "timeout"
    assert [runtime.run(f"print({n})").text for n in range(3)] == ["0\n", "1\n", "2\n"]
    runtime.close()


def test_reading_the_requests_starves_only_itself(sandbox: Sandbox) -> None:
    runtime = sandbox.runtime()
    steal = "import threading\nt = threading.Thread(target=lambda: os.read(channel(), 1000))\n"
    runtime.run(CHANNEL + steal + "t.daemon = True; t.start()")
    assert runtime.run("print(1)").kind in ("ok", "dead", "killed_timeout", "protocol")
    runtime.close()
    assert sandbox.run("print(2)").text == "2\n"


CRASHES = {
    "segfault": ("import ctypes; ctypes.string_at(0)", "dead"),
    "abort": ("os.abort()", "dead"),
    "_exit": ("os._exit(0)", "dead"),
    "closed channel": (CHANNEL + "os.close(channel())", "dead"),
    "every descriptor closed": ("os.closerange(0, 256)", "dead"),
    "deep recursion": ("sys.setrecursionlimit(10**9)\ndef f(): f()\nf()", None),
    "sys.exit": ("sys.exit(0)", "error"),
    "input": ("input()", "error"),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", "error"),
    "GeneratorExit": ("raise GeneratorExit", "error"),
    "no stdout": ("sys.stdout = None", "ok"),
    "stdout closed": ("sys.stdout.close()", "ok"),
    "show replaced": ("plt.show = None", "ok"),
    "broken exception": (
        "class E(Exception):\n    def __str__(self): raise MemoryError\nraise E",
        "error",
    ),
    "builtins emptied": ("import builtins\nbuiltins.__dict__.clear()", None),
    "modules emptied": ("sys.modules.clear()", None),
    "finalizer that raises": ("class D:\n    def __del__(self): 1 / 0\nD()", "ok"),
    "exit handler": ("import atexit\natexit.register(os.abort)", "ok"),
    "trace function": ("sys.settrace(lambda *a: 1 / 0)", None),
    "signal at itself": ("import signal; signal.raise_signal(signal.SIGUSR1)", "dead"),
    "signal without a name": ("os.kill(os.getpid(), 40)", "dead"),
    "signal of the C library": ("os.kill(os.getpid(), 32)", None),  # it may listen to it
    "stopped": ("import signal; signal.raise_signal(signal.SIGSTOP)", "killed_timeout"),
}


@pytest.mark.parametrize(("code", "kind"), CRASHES.values(), ids=CRASHES.keys())
def test_a_broken_interpreter_harms_nobody_else(
    sandbox: Sandbox, code: str, kind: str | None
) -> None:
    result = sandbox.run(code)
    allowed = ("ok", "error", "dead", "timeout", "killed_timeout", "protocol")
    assert result.kind == kind if kind else result.kind in allowed
    assert sandbox.run("print('fine')").text == "fine\n"


@pytest.mark.parametrize("broken", ["sys.stdout = None", "sys.stdout.close()", "plt.show = None"])
def test_the_next_cell_finds_output_and_show_again(sandbox: Sandbox, broken: str) -> None:
    runtime = sandbox.runtime()
    runtime.run(broken)
    result = runtime.run("print('here'); plt.figure(figsize=(1, 1)); plt.show()")
    assert (result.text, len(result.images)) == ("here\n", 1)
    runtime.close()
