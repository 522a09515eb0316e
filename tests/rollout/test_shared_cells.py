"""What a group's episodes share: equal cells run once, and nobody can tell from the results."""

import asyncio
import weakref
from contextlib import asynccontextmanager
from typing import get_args

import pytest
from PIL import Image

from pyvision_rl.rollout.runtime import RuntimePool
from pyvision_rl.rollout.shared_cells import SharedCells
from pyvision_rl.sandbox import CellResult, ResultKind, SandboxConfig, SandboxPool

IMAGE = Image.new("RGB", (8, 6), (200, 30, 60))


class Counted:
    """A pool that notes which cells were really run, and in how many runtimes."""

    def __init__(self, pool: RuntimePool) -> None:
        self.pool = pool
        self.cells: list[str] = []
        self.num_runtimes = 0

    @asynccontextmanager
    async def runtime(self, *, images, videos, seed):
        self.num_runtimes += 1
        async with self.pool.runtime(images=images, videos=videos, seed=seed) as runtime:
            yield Noting(runtime, self.cells)


class Noting:
    def __init__(self, runtime, cells) -> None:
        self.runtime = runtime
        self.cells = cells

    async def run(self, code):
        self.cells.append(code)
        return await self.runtime.run(code)


async def play(pool, programs, seed=3):
    """The results of episodes that each run their own list of cells, all at once."""
    cells = SharedCells(pool, seed, len(programs))

    async def episode(program):
        async with cells.runtime(images=[IMAGE], videos=[], seed=99) as runtime:
            return [await runtime.run(code) for code in program]

    return await asyncio.gather(*map(episode, programs))


def run(programs, seed=3, timeout_s=10.0):
    async def main():
        async with SandboxPool(SandboxConfig(timeout_s=timeout_s)) as pool:
            counted = Counted(pool)
            return await play(counted, programs, seed), counted

    return asyncio.run(main())


def texts(results):
    return [[result.text.strip() for result in episode] for episode in results]


def test_equal_cells_run_once():
    results, counted = run([["print(image_clue_0.size)"]] * 8)
    assert texts(results) == [["(8, 6)"]] * 8
    assert counted.cells == ["print(image_clue_0.size)"]
    assert counted.num_runtimes == 1


def test_who_needs_no_process_asks_the_pool_for_none():
    """A pool keeps every runtime that it hands out, with its images, until it is closed."""
    asked = []

    async def main():
        async with SandboxPool(SandboxConfig()) as pool:

            class Asked:
                def runtime(self, **media):
                    asked.append(media["seed"])
                    return pool.runtime(**media)

            await play(Asked(), [["print(1)"]] * 4)

    asyncio.run(main())
    assert asked == [3]


def test_who_goes_another_way_has_the_variables_of_the_cells_before():
    results, counted = run([["x = 4", "print(x + 1)"], ["x = 4", "print(x + 2)"], ["print(7)"]])
    assert texts(results) == [["", "5"], ["", "6"], ["7"]]
    assert sorted(counted.cells) == ["print(7)", "print(x + 1)", "print(x + 2)", "x = 4", "x = 4"]
    assert counted.num_runtimes == 3


def test_the_same_cell_after_another_past_is_another_cell():
    results, _ = run([["x = 1", "print(x)"], ["x = 2", "print(x)"]])
    assert texts(results) == [["", "1"], ["", "2"]]


def test_errors_are_shared_too():
    results, counted = run([["1 / 0", "print('on')"]] * 3)
    assert {episode[0].kind for episode in results} == {"error"}
    assert texts(results)[2][1] == "on"
    assert counted.cells == ["1 / 0", "print('on')"]


def test_figures_are_shared():
    code = "import matplotlib.pyplot as plt\nplt.imshow(image_clue_0); plt.show()"
    results, counted = run([[code]] * 2)
    one, other = (episode[0].images[0] for episode in results)
    assert one.tobytes() == other.tobytes()
    assert len(counted.cells) == 1


def test_an_ended_runtime_is_nobody_elses():
    ends = "import os; os._exit(3)"
    results, counted = run([[ends, "print(1)"]] * 2)
    assert [[result.kind for result in episode] for episode in results] == [["dead", "dead"]] * 2
    assert counted.cells.count(ends) == 2


def test_a_timeout_is_not_shared_and_what_follows_is_the_episodes_own():
    slow = "x = 5\nwhile True: pass"
    results, counted = run([[slow, "print(x)"]] * 2, timeout_s=0.3)
    assert [[result.kind for result in episode] for episode in results] == [["timeout", "ok"]] * 2
    assert counted.cells.count(slow) == counted.cells.count("print(x)") == 2


@pytest.mark.parametrize("kind", get_args(ResultKind))
def test_endings_that_depend_on_the_cells_alone_are_shared(kind):
    class Pool:
        """Runtimes in which every program ends alike."""

        @asynccontextmanager
        async def runtime(self, *, images, videos, seed):
            yield self

        async def run(self, code: str) -> CellResult:
            return CellResult(kind, "", [], 0.0)

    counted = Counted(Pool())
    results = asyncio.run(play(counted, [["1"], ["1"], ["1"]]))
    assert [result.kind for (result,) in results] == [kind] * 3
    assert len(counted.cells) == (1 if kind in ("ok", "error") else 3)


def test_random_numbers_are_the_groups():
    code = "import random; print(random.random())"
    (first, second), counted = run([[code], ["pass", code]])
    assert len(counted.cells) == 3
    assert first[0].text == second[1].text
    again, _ = run([[code]])
    other, _ = run([[code]], seed=4)
    assert again[0][0].text == first[0].text
    assert other[0][0].text != first[0].text


def test_who_waits_runs_the_cell_when_the_first_one_is_cancelled():
    class Stuck:
        """The first runtime never answers; later ones are real."""

        def __init__(self, pool) -> None:
            self.pool = pool
            self.started = asyncio.Event()

        @asynccontextmanager
        async def runtime(self, *, images, videos, seed):
            if self.started.is_set():
                async with self.pool.runtime(images=images, videos=videos, seed=seed) as runtime:
                    yield runtime
            else:
                yield self

        async def run(self, code) -> CellResult:
            self.started.set()
            await asyncio.Event().wait()
            raise AssertionError("never answers")

    async def main():
        async with SandboxPool(SandboxConfig()) as pool:
            stuck = Stuck(pool)
            cells = SharedCells(stuck, 1, 2)

            async def episode():
                async with cells.runtime(images=[], videos=[], seed=0) as runtime:
                    return await runtime.run("print(2)")

            first = asyncio.create_task(episode())
            await stuck.started.wait()
            second = asyncio.create_task(episode())
            await asyncio.sleep(0)
            first.cancel()
            async with asyncio.timeout(30):
                result = await second
            with pytest.raises(asyncio.CancelledError):
                await first
            return result.text.strip()

    assert asyncio.run(main()) == "2"


def test_who_cannot_run_the_cells_before_again_is_lost():
    """They ended well, so that the policy is not to blame for another end."""

    class Slow:
        """In the second runtime the first cell takes too long."""

        def __init__(self, pool) -> None:
            self.pool = pool
            self.runtimes = 0

        @asynccontextmanager
        async def runtime(self, *, images, videos, seed):
            self.runtimes += 1
            self.is_slow = self.runtimes == 2
            async with self.pool.runtime(images=images, videos=videos, seed=seed) as runtime:
                self.inner = runtime
                yield self if self.is_slow else runtime

        async def run(self, code) -> CellResult:
            return await self.inner.run("while True: pass" if code == "x = 1" else code)

    async def main():
        async with SandboxPool(SandboxConfig(timeout_s=0.3)) as pool:
            cells = SharedCells(Slow(pool), 1, 2)

            async def episode(code):
                async with cells.runtime(images=[], videos=[], seed=0) as runtime:
                    return [(await runtime.run(cell)).kind for cell in ("x = 1", code)]

            return [await episode(code) for code in ("print(x)", "print(x + 1)")]

    assert asyncio.run(main()) == [["ok", "ok"], ["ok", "sandbox_lost"]]


def test_figures_that_no_episode_can_reach_any_more_are_let_go():
    """A group may show gigabytes; its trajectories hold what they show, smaller mostly."""

    def show(level):
        return (
            "import matplotlib.pyplot as plt\n"
            f"plt.imshow(image_clue_0.point(lambda v: {level})); plt.show()"
        )

    async def main():
        async with SandboxPool(SandboxConfig()) as pool:
            cells = SharedCells(pool, 1, 3)
            media = {"images": [IMAGE], "videos": [], "seed": 0}
            async with cells.runtime(**media) as one, cells.runtime(**media) as other:
                seen = [weakref.ref((await one.run(show(level))).images[0]) for level in (1, 2)]
                await other.run(show(1))
                # A third episode may still begin with the same cells.
                held = [[figure() is not None for figure in seen]]
                async with cells.runtime(**media) as third:
                    held.append([figure() is not None for figure in seen])
                    await third.run(show(3))
                held.append([figure() is not None for figure in seen])
                await other.run(show(2))
                held.append([figure() is not None for figure in seen])
            return held

    assert asyncio.run(main()) == [[True, True], [True, True], [False, True], [False, False]]
