"""What a runtime starts with: little, and everything that a first figure needs."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import psutil

from pyvision_rl.sandbox.bench import private_mb
from pyvision_rl.sandbox.memory import HUGE_PAGE, private_memory
from tests.sandbox.conftest import Sandbox


def test_what_few_cells_need_is_not_loaded(sandbox: Sandbox) -> None:
    heavy = "('asyncio', 'av', 'ssl', 'scipy', 'cv2', 'pyvision_rl.sandbox.pool')"
    assert sandbox.run(f"print([name for name in {heavy} if name in sys.modules])").text == "[]\n"


def test_decord_is_there_when_asked_for(sandbox: Sandbox) -> None:
    names = "import decord.bridge\nfrom decord import VideoReader, cpu\n"
    code = names + "print(cpu(0), 'av' in sys.modules)"
    assert sandbox.run(code).text == "('cpu', 0) True\n"


def test_an_idle_runtime_holds_little_memory_of_its_own(sandbox: Sandbox) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    runtimes = [sandbox.runtime() for _ in range(4)]
    for runtime in runtimes:
        runtime.run("x = 1")
    found = {child.pid for child in psutil.Process().children(recursive=True)} - before
    memory = statistics.mean(private_mb(pid) for pid in found)
    for runtime in runtimes:
        runtime.close()
    assert len(found) == 4
    assert memory < 3  # MiB; a whole interpreter with these imports has 60


def test_a_start_touches_little_memory(sandbox: Sandbox) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    runtime = sandbox.runtime()
    runtime.run("x = 1")
    (started,) = {child.pid for child in psutil.Process().children(recursive=True)} - before
    faults = int(Path(f"/proc/{started}/stat").read_text().rpartition(")")[2].split()[7])
    runtime.close()
    assert faults < 750  # it was 970 with what `os.fork` does and nothing prepared


FILLED = """
import gc
from pyvision_rl.sandbox.memory import POOL, fill_holes
old = {id(thing) // POOL for thing in gc.get_objects()}
def num_mixed():
    made = [bytes(size) for size in range(2, 470)]
    return len(old & {id(thing) // POOL for thing in made})
before = num_mixed()
fill_holes()
print(before, num_mixed())
"""


def test_what_is_made_after_the_holes_are_filled_lies_apart() -> None:
    command = [sys.executable, "-c", FILLED]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after <= 2 < 10 <= before  # pools that hold old things and new ones


def test_the_first_figure_finds_its_fonts_open(sandbox: Sandbox) -> None:
    code = """
opened, real = [], io.open
def note(name, *arguments, **options):
    opened.append(str(name))
    return real(name, *arguments, **options)
io.open = note
plt.imshow(np.eye(3)); plt.title('first'); plt.show()
io.open = real
print([name for name in opened if name.endswith('.ttf')])
"""
    result = sandbox.run(code)
    assert (result.text, len(result.images)) == ("[]\n", 1)


def test_a_font_of_its_own_and_every_file_format_still_work(patient_sandbox: Sandbox) -> None:
    code = """
plt.title('serif', family='DejaVu Serif')
for kind in ('pdf', 'ps', 'svg'):
    plt.savefig('figure.' + kind)
print(all(os.path.getsize('figure.' + kind) > 1000 for kind in ('pdf', 'ps', 'svg')))
plt.show()
"""
    result = patient_sandbox.run(code)
    assert (result.kind, result.text, len(result.images)) == ("ok", "True\n", 1)


def test_memory_to_gather_comes_in_whole_huge_pages() -> None:
    ranges = list(private_memory())
    assert ranges
    assert all(
        start % HUGE_PAGE == 0 == num_bytes % HUGE_PAGE < num_bytes for start, num_bytes in ranges
    )
