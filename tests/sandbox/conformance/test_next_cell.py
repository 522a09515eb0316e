"""What a cell leaves behind must not answer for the next one, stop it, or reach the pool."""

from __future__ import annotations

import pytest

from tests.sandbox.conftest import Sandbox

LEFT_BEHIND = {
    "exit handler": "import atexit; atexit.register(print, 'bye')",
    "alarm": (
        "import signal\nsignal.signal(signal.SIGALRM, lambda *_: print('alarm'))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.1)"
    ),
    "tracer": "sys.settrace(lambda *_: 1 / 0)",
    "tracer that exits": "def trace(*_): raise SystemExit\nsys.settrace(trace)",
    "profiler": "sys.setprofile(lambda *_: 1 / 0)",
    "hooks": "sys.excepthook = sys.unraisablehook = sys.displayhook = None",
    "timer": "import signal; signal.setitimer = lambda *_: None",
    "clock": "import time; time.monotonic = lambda: -1e9",
    "few descriptors": "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))",
    "all descriptors": "files = []\nwhile True: files.append(open('/dev/null'))",
    "folder taken away": "os.mkdir('d'); os.chdir('d'); os.rmdir('../d')",
    "another folder": "os.chdir('/')",
    "module of its own": "open('statistics.py', 'w').write('1 / 0')\nimport statistics",
    "swapped streams": "sys.stdout = sys.stderr = sys.stdin = 5",
    "closed figures": "plt.show = plt.close = plt.get_fignums",
}


@pytest.mark.parametrize("code", LEFT_BEHIND.values(), ids=LEFT_BEHIND.keys())
def test_the_next_cell_runs_as_if_nothing_were_left(sandbox: Sandbox, code: str) -> None:
    runtime = sandbox.runtime()
    assert runtime.run(code).kind in ("ok", "error")
    result = runtime.run("import time; time.sleep(0.2); print('next')")
    assert (result.kind, result.text) == ("ok", "next\n")
    runtime.close()


def test_a_full_scratch_folder_leaves_the_next_cell_or_none(sandbox: Sandbox) -> None:
    runtime = sandbox.runtime()
    result = runtime.run("while True: open(str(len(os.listdir())), 'wb').write(bytes(2**22))")
    assert result.kind in ("error", "killed_memory")  # bounded by a tmpfs, or by the fork server
    assert runtime.alive == (result.kind == "error")
    if runtime.alive:
        assert runtime.run("print('next')").text == "next\n"
    runtime.close()


FALSE_FIGURES = {
    "image of another size": (
        "class Large(Image.Image):\n    size = (10**6, 10**6)\nshown.append(Large())"
    ),
    "five hundred": "shown.extend([Image.new('RGB', (8, 8))] * 500)",
    "not an image": "shown.append('image')",
    "empty": "shown.append(Image.new('RGB', (0, 0)))",
    "too long": "shown.append(Image.new('RGB', (1, 200)))",
    "too wide": "shown.append(Image.new('RGB', (2000, 10)))",
}


@pytest.mark.parametrize("code", FALSE_FIGURES.values(), ids=FALSE_FIGURES.keys())
def test_figures_put_into_the_answer_are_checked(sandbox: Sandbox, code: str) -> None:
    runtime = sandbox.runtime()
    result = runtime.run("shown = plt.show.__self__.shown\n" + code)
    assert result.kind in ("protocol", "dead")
    assert (result.images, runtime.alive) == ([], False)
    runtime.close()


HARD_FIGURES = {
    "holes only": "plt.imshow(np.full((8, 8), np.nan)); plt.show()",
    "infinite": "plt.imshow(np.array([[np.inf, 1], [-np.inf, 0]])); plt.show()",
    "one point": "plt.plot([np.nan], [np.inf]); plt.show()",
}
REFUSED_FIGURES = {
    "size of no number": "plt.figure(figsize=(float('nan'), 1)); plt.show()",
    "infinite size": "plt.figure(figsize=(float('inf'), 1)); plt.show()",
    "negative size": "plt.figure(figsize=(-1, 1)); plt.show()",
    "no size": "plt.figure(figsize=(0, 1)); plt.show()",
    "fine grain": "plt.figure(dpi=10**6); plt.show()",
    "fine grain set late": "plt.gcf().set_dpi(10**5); plt.show()",
}


@pytest.mark.parametrize("code", HARD_FIGURES.values(), ids=HARD_FIGURES.keys())
def test_numbers_that_are_none_can_be_shown(sandbox: Sandbox, code: str) -> None:
    result = sandbox.run(code)
    assert (result.kind, [image.size for image in result.images]) == ("ok", [(640, 480)])


@pytest.mark.parametrize("code", REFUSED_FIGURES.values(), ids=REFUSED_FIGURES.keys())
def test_a_figure_of_no_size_is_an_error(sandbox: Sandbox, code: str) -> None:
    result = sandbox.run(code)
    assert (result.kind, result.images) == ("error", [])


HARD_ERRORS = {
    "text without end": (
        "class E(Exception):\n    def __str__(s):\n        while True: pass\nraise E"
    ),
    "groups in groups": (
        "e = ValueError()\nfor _ in range(3000): e = ExceptionGroup('x', [e])\nraise e"
    ),
    "causes in a ring": "a, b = KeyError(), KeyError()\na.__cause__, b.__cause__ = b, a\nraise a",
    "large name": "raise type('E' * 10**6, (Exception,), {'__module__': 5})",
    "deep": "def f(n): return f(n - 1) if n else 1 / 0\nf(900)",
    "many brackets": "x = " + "[" * 3000 + "]" * 3000,
    "no reporter": "import traceback\ntraceback.TracebackException = None\n1 / 0",
}


@pytest.mark.parametrize("code", HARD_ERRORS.values(), ids=HARD_ERRORS.keys())
def test_an_error_that_is_hard_to_report_is_bounded(sandbox: Sandbox, code: str) -> None:
    result = sandbox.run(code)
    assert result.kind in ("error", "dead", "killed_timeout")
    assert len(result.text) < 11_000


BOMB = """
import struct, zlib
head = b'IHDR' + struct.pack('>IIBBBBB', 60000, 60000, 8, 2, 0, 0, 0)
png = b'\\x89PNG\\r\\n\\x1a\\n' + struct.pack('>I', 13) + head + struct.pack('>I', zlib.crc32(head))
Image.open(io.BytesIO(png + struct.pack('>I', 0) + b'IDAT'))
"""


def test_a_decompression_bomb_is_an_error(sandbox: Sandbox) -> None:
    result = sandbox.run(BOMB)
    assert (result.kind, "DecompressionBombError" in result.text) == ("error", True)
