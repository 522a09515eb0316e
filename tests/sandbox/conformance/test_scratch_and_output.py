"""Scratch files, text and figures: all usable, all bounded."""

from __future__ import annotations

import pytest

from tests.sandbox.conftest import Sandbox


def test_scratch_files_work(sandbox: Sandbox) -> None:
    code = """
import tempfile, pathlib, shutil
pathlib.Path('sub').mkdir()
pathlib.Path('sub/a').write_text('x')
shutil.move('sub/a', 'b')
with tempfile.TemporaryDirectory() as folder:
    pathlib.Path(folder, 'c').write_bytes(b'1')
print(pathlib.Path('b').read_text(), sorted(os.listdir('.')))
"""
    assert sandbox.run(code).text == "x ['b', 'sub']\n"


def test_savefig_to_scratch_works(sandbox: Sandbox) -> None:
    result = sandbox.run("plt.plot([1, 2]); plt.savefig('f.png'); print(Image.open('f.png').size)")
    assert result.text == "(640, 480)\n"


def test_a_large_file_is_refused(sandbox: Sandbox) -> None:
    code = "with open('big', 'wb') as f:\n    for _ in range(200): f.write(bytes(2**20))"
    result = sandbox.run(code)
    assert (result.kind, "File too large" in result.text) == ("error", True)


def test_many_files_are_bounded(sandbox: Sandbox) -> None:
    result = sandbox.run("for i in range(200_000): open(str(i), 'w').close()")
    assert result.kind in ("error", "timeout", "killed_memory")


def test_many_large_files_are_bounded(sandbox: Sandbox) -> None:
    code = """
written = 0
for i in range(40):
    with open(str(i), 'wb') as f:
        written += f.write(bytes(2**24))
        f.flush()
        import time; time.sleep(0.05)
"""
    result = sandbox.run(code)
    assert result.kind in ("error", "killed_memory")


def test_a_mountain_of_text_is_cut_in_the_middle(sandbox: Sandbox) -> None:
    result = sandbox.run("for i in range(40_000): print(f'{i:049d}')")
    assert result.kind == "ok"
    assert len(result.text) <= 10_000 + 100
    assert result.text.startswith(f"{0:049d}\n")
    assert result.text.endswith(f"{39_999:049d}\n")
    assert f"[... {40_000 * 50 - 10_000} characters cut ...]" in result.text


@pytest.mark.slow
def test_two_gigabytes_of_text_are_bounded(sandbox: Sandbox) -> None:
    runtime = sandbox.runtime()
    result = runtime.run("line = 'x' * 2**20\nfor _ in range(2048): print(line)")
    assert result.kind in ("ok", "timeout")
    assert len(result.text) < 11_000
    assert runtime.run("print('next')").text == "next\n"
    runtime.close()


def test_bytes_written_below_python_are_bounded(sandbox: Sandbox) -> None:
    runtime = sandbox.runtime()
    result = runtime.run("print(os.write(1, b'y' * 10**8) <= 64 * 2**20)")
    assert len(result.text) < 11_000
    assert "characters cut" in result.text
    assert runtime.run("print('next')").text == "next\n"
    runtime.close()


def test_an_enormous_exception_text_is_bounded(sandbox: Sandbox) -> None:
    result = sandbox.run("raise ValueError('z' * 10**7)")
    assert (result.kind, len(result.text) < 11_000) == ("error", True)


def test_sixteen_figures_and_a_count(sandbox: Sandbox) -> None:
    code = "for _ in range(40):\n    plt.figure(figsize=(0.2, 0.2)); plt.show()"
    result = sandbox.run(code)
    assert (result.kind, len(result.images)) == ("ok", 16)
    assert "24 more figures were shown" in result.text


def test_the_pixels_of_a_cell_are_bounded_together(patient_sandbox: Sandbox) -> None:
    code = "for _ in range(3):\n    plt.figure(figsize=(40, 40)); plt.show()"
    result = patient_sandbox.run(code)  # 16 million pixels each, 2 * 4096 ** 2 together
    assert (result.kind, len(result.images)) == ("error", 2)
    assert "33554432 pixels together" in result.text


@pytest.mark.parametrize("size", ["(2000, 2000)", "(0.01, 30)", "(400, 1)"])
def test_a_figure_that_no_model_can_read_is_an_error(sandbox: Sandbox, size: str) -> None:
    runtime = sandbox.runtime()
    result = runtime.run(f"plt.figure(figsize={size}); plt.show()")
    assert (result.kind, result.images) == ("error", [])
    assert runtime.run("plt.figure(figsize=(1, 1)); plt.show()").kind == "ok"
    runtime.close()
