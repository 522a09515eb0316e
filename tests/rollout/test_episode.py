"""Episodes played by a script through a real sandbox."""

import asyncio
from dataclasses import replace

import pytest
from PIL import Image

from pyvision_rl.errors import ConfigError, InputError
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.scripted import ScriptedEngine, play_texts
from pyvision_rl.rollout.episode import Agent, RolloutConfig, open_task, run_episode
from pyvision_rl.rollout.group import run_group, run_together
from pyvision_rl.sandbox import CellResult, SandboxConfig, SandboxPool
from pyvision_rl.types import StopReason, Task, Trajectory

CONFIG = RolloutConfig(
    prompt="brief", max_tool_calls=2, max_tokens=2000, max_completion_tokens=300, max_images=4
)
ANSWER = "I see 7.\n<answer>\n\\boxed{7}\n</answer>"


def call(code: str) -> str:
    return f"look\n<code>\n```python\n{code}\n```\n</code>"


SHOW = call("plt.imshow(image_clue_0.crop((0, 0, 84, 56)))\nplt.show()")


@pytest.fixture
def task(image_file) -> Task:
    return Task("t", "Which digit is on the red tag?", "7", images=(image_file,))


class Stage:
    """One event loop and one real pool for all episodes of this file."""

    def __init__(self, runner: asyncio.Runner, pool: SandboxPool, codec: ChatCodec) -> None:
        self.runner = runner
        self.pool = pool
        self.codec = codec

    def agent(self, *texts: str, config: RolloutConfig = CONFIG) -> Agent:
        engine = play_texts(self.codec, {"t": texts})
        return Agent(engine, self.codec, self.pool, config)

    def play(self, task: Task, *texts: str, config: RolloutConfig = CONFIG) -> Trajectory:
        agent = self.agent(*texts, config=config)
        return self.runner.run(run_episode(agent, open_task(agent, task), seed=1))


@pytest.fixture(scope="module")
def stage(codec):
    config = SandboxConfig(isolation="best_effort", figures="pixels", timeout_s=1, grace_s=0.2)
    with asyncio.Runner() as runner:
        pool = SandboxPool(config)
        runner.run(pool.__aenter__())
        yield Stage(runner, pool, codec)
        runner.run(pool.__aexit__(None, None, None))


def test_look_then_answer(stage, task):
    trajectory = stage.play(task, SHOW, ANSWER)
    assert (trajectory.stop, trajectory.answer) == (StopReason.ANSWERED, "7")
    assert trajectory.num_tool_calls == trajectory.num_ok_tool_calls == 1
    first, last = trajectory.turns
    assert last.observation is None
    assert first.observation is not None
    (shown,) = first.observation.images
    original = Image.open(task.images[0]).crop((0, 0, 84, 56))
    assert shown.tobytes() == original.tobytes()
    assert "<image_clue_1><image></image_clue_1>" in first.observation.text
    assert trajectory.looked
    # 200 x 100 fits 28224 pixels as 196 x 112: 7 x 4 tokens; the crop has 3 x 2
    assert trajectory.num_visual_tokens == 28 + 6


def test_what_was_shown_has_its_name_in_the_runtime(stage, task):
    trajectory = stage.play(task, SHOW, call("print(image_clue_1.size)"), ANSWER)
    second = trajectory.turns[1].observation
    assert second is not None
    assert "(84, 56)" in second.text


def test_an_error_is_an_observation_and_the_episode_goes_on(stage, task):
    trajectory = stage.play(task, call("1/0"), ANSWER)
    observation = trajectory.turns[0].observation
    assert observation is not None
    assert "ZeroDivisionError" in observation.text
    assert not observation.ok
    assert trajectory.stop is StopReason.ANSWERED
    assert (trajectory.num_tool_calls, trajectory.num_ok_tool_calls) == (1, 0)


def test_on_error_end_stops_as_the_papers_code_does(stage, task):
    config = replace(CONFIG, on_error="end")
    trajectory = stage.play(task, call("1/0"), ANSWER, config=config)
    assert trajectory.stop is StopReason.CODE_ERROR
    assert len(trajectory.turns) == 1


def test_the_turn_budget(stage, task):
    trajectory = stage.play(task, SHOW, SHOW, SHOW)
    assert trajectory.stop is StopReason.MAX_TURNS
    assert trajectory.num_tool_calls == 2
    assert trajectory.turns[2].code is not None
    assert trajectory.turns[2].observation is None


def test_no_action(stage, task):
    assert stage.play(task, "hm").stop is StopReason.NO_ACTION


def test_a_cut_completion_ends_the_episode_even_with_an_answer_in_it(stage, task):
    config = replace(
        CONFIG, max_completion_tokens=len(stage.codec.encode_completion(ANSWER)[0]) - 1
    )
    trajectory = stage.play(task, ANSWER, config=config)
    assert trajectory.stop is StopReason.MAX_TOKENS
    assert trajectory.answer is None


def test_an_observation_over_the_token_budget_is_left_out_whole(stage, task):
    prompt_tokens = len(stage.play(task, ANSWER).prompt.token_ids)
    config = replace(CONFIG, max_tokens=prompt_tokens + 300)
    trajectory = stage.play(task, call("print('x ' * 400)"), ANSWER, config=config)
    assert trajectory.stop is StopReason.MAX_TOKENS
    assert trajectory.turns[0].observation is None
    assert len(trajectory.context.token_ids) <= config.max_tokens


def test_images_over_the_budget_are_left_out_whole(stage, task):
    config = replace(CONFIG, max_images=2)
    trajectory = stage.play(task, SHOW, SHOW, ANSWER, config=config)
    assert trajectory.stop is StopReason.MAX_IMAGES
    assert len(trajectory.context.images) == 2
    assert trajectory.turns[1].observation is None


def test_a_prompt_over_the_budget_is_data_not_a_crash(stage, task, caplog):
    agent = stage.agent(ANSWER, config=replace(CONFIG, max_tokens=10))
    one, other = stage.runner.run(run_group(agent, task, 2, seed=0))
    assert one.stop is other.stop is StopReason.MAX_TOKENS
    assert one.turns == other.turns == ()
    num_tokens = len(one.prompt.token_ids)
    assert caplog.messages == [
        f"task t: its prompt has {num_tokens} tokens, max_tokens is 10: it is not played"
    ]


def test_images_only_in_the_runtime(stage, task):
    config = replace(CONFIG, prompt="image_runtime", images_in_context=False)
    trajectory = stage.play(task, SHOW, ANSWER, config=config)
    assert trajectory.prompt.images == ()
    assert trajectory.prompt.num_visual_tokens == 0
    observation = trajectory.turns[0].observation
    assert observation is not None
    # the given image is image_clue_0 in the runtime, so what is shown is the next one
    assert "<image_clue_1>" in observation.text


def test_several_images_are_numbered_through(stage, task, image_file):
    both = replace(task, images=(image_file, image_file))
    trajectory = stage.play(
        both, call("plt.imshow(image_clue_1.crop((0, 0, 56, 56)))\nplt.show()"), ANSWER
    )
    assert "<image_clue_1><image></image_clue_1>\n\n" in trajectory.prompt.text
    observation = trajectory.turns[0].observation
    assert observation is not None
    assert "<image_clue_2>" in observation.text


def test_a_dead_runtime_is_an_observation(stage, task):
    trajectory = stage.play(task, call("import os\nos._exit(3)"), call("print(1)"), ANSWER)
    assert trajectory.stop is StopReason.ANSWERED
    assert [t.observation.ok for t in trajectory.turns if t.observation] == [False, False]


class LosingPool:
    """A pool whose first runtimes are lost: the shape of a crashed fork server."""

    def __init__(self, num_lost: int) -> None:
        self.num_lost = num_lost

    def runtime(self, **_):
        lost = self.num_lost > 0
        self.num_lost -= 1
        return _Runtime("sandbox_lost" if lost else "ok")


class _Runtime:
    def __init__(self, kind) -> None:
        self.kind = kind

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        return None

    async def run(self, code):
        return CellResult(self.kind, "", [], 0.0)


@pytest.mark.parametrize(
    ("num_lost", "stop"), [(1, StopReason.ANSWERED), (2, StopReason.SANDBOX_LOST)]
)
def test_a_lost_sandbox_is_tried_again_once(codec, task, num_lost, stop):
    engine = play_texts(codec, {task.id: [call("1"), ANSWER]})
    agent = Agent(engine, codec, LosingPool(num_lost), CONFIG)
    (trajectory,) = asyncio.run(run_group(agent, task, 1, seed=3))
    assert trajectory.stop is stop


@pytest.mark.parametrize(("share_cells", "num_numbers"), [(True, 1), (False, 3)])
def test_members_have_seeds_and_interpreters_too_unless_they_share(
    stage, task, share_cells, num_numbers
):
    config = replace(CONFIG, share_cells=share_cells)
    agent = stage.agent(call("print(np.random.rand())"), ANSWER, config=config)
    first, again = (stage.runner.run(run_group(agent, task, 3, seed=5)) for _ in range(2))
    printed = [t.turns[0].observation.text for t in first if t.turns[0].observation]
    assert len(printed) == 3
    assert len(set(printed)) == num_numbers
    assert printed == [t.turns[0].observation.text for t in again if t.turns[0].observation]
    assert len({trajectory.seed for trajectory in first}) == 3


def test_media_that_cannot_be_read_stop_the_group(codec, task, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    agent = Agent(ScriptedEngine(codec, lambda _: ANSWER), codec, LosingPool(0), CONFIG)
    with pytest.raises(InputError, match=r"broken\.png"):
        asyncio.run(run_group(agent, replace(task, images=(broken,)), 2, seed=0))


def test_the_first_error_of_many_jobs_is_raised_as_it_is():
    started = []

    async def job(index):
        started.append(index)
        await asyncio.sleep(0 if index else 10)
        raise InputError(f"job {index}")

    with pytest.raises(InputError, match="job 1"):
        asyncio.run(run_together(map(job, (0, 1))))
    assert started == [0, 1]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -1),
        ("temperature", 1e-40),
        ("top_p", 0),
        ("max_tool_calls", -1),
    ],
)
def test_impossible_limits_are_refused(field, value):
    with pytest.raises(ConfigError, match=field):
        RolloutConfig(**{field: value})


def test_turns_are_told_as_they_come(stage, task):
    seen = []
    agent = stage.agent(SHOW, ANSWER)
    opening = open_task(agent, task)
    trajectory = stage.runner.run(run_episode(agent, opening, seed=1, on_turn=seen.append))
    assert tuple(seen) == trajectory.turns
    assert [turn.observation is None for turn in seen] == [False, True]


def test_calls_that_fail_on_purpose(stage, task):
    def play(seed: int, share: float) -> Trajectory:
        agent = stage.agent(SHOW, SHOW, ANSWER, config=replace(CONFIG, fail_calls=share))
        return stage.runner.run(run_episode(agent, open_task(agent, task), seed))

    always = play(1, 1.0)
    assert (always.num_tool_calls, always.num_ok_tool_calls) == (2, 0)
    assert not always.looked
    seen = always.turns[0].observation
    assert seen is not None
    assert "RuntimeError: the interpreter is not available" in seen.text
    assert play(1, 0.0).num_ok_tool_calls == 2
    # 40 draws of one half: from 10 to 30 but for once in a thousand; the same seed, the same draw
    ok = [play(seed, 0.5).num_ok_tool_calls for seed in range(20)]
    assert 10 <= sum(ok) <= 30
    assert ok[:5] == [play(seed, 0.5).num_ok_tool_calls for seed in range(5)]


def test_a_setup_defines_tools_before_the_first_program(stage, task, tmp_path):
    tools = tmp_path / "tools.py"
    tools.write_text("calls = 0\ndef twice(number):\n    return 2 * number\n")
    config = replace(CONFIG, setup=str(tools))
    code = "<code>\n```python\ncalls += 1\nprint(twice(21), calls)\n```\n</code>"
    trajectory = stage.play(task, code, code, ANSWER, config=config)
    first, second = (turn.observation.text for turn in trajectory.turns[:2])
    assert "42 1" in first
    # It runs once.
    assert "42 2" in second
    assert trajectory.num_tool_calls == 2


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def broken(:", r"tools\.py: is no Python \(invalid syntax"),
        ("1 / 0", r"tools\.py: failed in the sandbox \(ZeroDivisionError"),
        ("plt.imshow(image_clue_0); plt.show()", r"tools\.py: shows a figure"),
    ],
)
def test_a_setup_that_cannot_be_used(stage, task, tmp_path, code, message):
    tools = tmp_path / "tools.py"
    tools.write_text(code)
    config = replace(CONFIG, setup=str(tools))
    with pytest.raises(InputError, match=message):
        stage.play(task, SHOW, ANSWER, config=config)


@pytest.mark.parametrize("code", ["while True: pass", "import os; os._exit(3)"])
def test_a_setup_that_the_machine_may_have_stopped_loses_no_run(
    stage, task, tmp_path, code, caplog
):
    """A loaded machine runs into time limits; one episode of thousands must not end training."""
    tools = tmp_path / "tools.py"
    tools.write_text(code)
    trajectory = stage.play(task, SHOW, ANSWER, config=replace(CONFIG, setup=str(tools)))
    assert trajectory.stop is StopReason.SANDBOX_LOST
    assert trajectory.num_tool_calls == 0
    assert "tools.py: did not end in the sandbox" in caplog.text
