"""The whole path on real files: blind tasks measured in the sandbox, MATH-Vision, DynaMath."""

import asyncio
import base64
import json
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from pyvision_rl.data.readers import read_tasks
from pyvision_rl.eval.benchmark_stage import BenchmarkConfig, run_benchmark
from pyvision_rl.eval.benchmarks.cells import ImageCache
from pyvision_rl.eval.benchmarks.dynamath import DYNAMATH
from pyvision_rl.eval.benchmarks.item import Source, read_items
from pyvision_rl.eval.evaluate import EvaluateConfig, evaluate
from pyvision_rl.eval.report import make_report
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.loading import TINY_BASE
from pyvision_rl.model.policy import PolicyConfig
from pyvision_rl.model.scripted import ScriptedEngine
from pyvision_rl.reward.reward import RewardConfig
from pyvision_rl.rollout.agent import AgentConfig
from pyvision_rl.rollout.episode import Agent, RolloutConfig
from pyvision_rl.rollout.videos import VideoConfig
from pyvision_rl.sandbox import SandboxConfig, SandboxPool
from tests.eval.benchmarks.files import parquet, tsv
from tests.eval.blind_policy import blind_policy

REAL_DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(
    not REAL_DATA.exists(), reason="no ../shared/data beside the repository"
)
SANDBOX = SandboxConfig(isolation="best_effort", figures="pixels")
ROLLOUT = RolloutConfig(prompt="brief", max_tool_calls=2, max_tokens=8000)
PIXELS = PixelLimits(784, 28224)


def quiet(done: int, total: int) -> None:
    """Progress that nobody watches."""


def with_script(write, use):
    """The result of `use(agent)` with an agent that writes what `write(context)` says."""

    async def main():
        codec = ChatCodec.from_folder(TINY_BASE, PIXELS)
        async with SandboxPool(SANDBOX) as pool:
            return await use(Agent(ScriptedEngine(codec, write), codec, pool, ROLLOUT))

    return asyncio.run(main())


def answering(answers):
    """Writes the answer of each task at once."""
    return lambda context: f"<answer>\n\\boxed{{{answers[context.id]}}}\n</answer>"


def test_blind_tasks_are_solved_by_measuring_in_the_sandbox():
    tasks = read_tasks(REAL_DATA / "vlms_are_blind" / "test.json")
    config = EvaluateConfig(max_tasks=4)
    groups = with_script(
        blind_policy, lambda agent: evaluate(agent, tasks, RewardConfig(), config, quiet)
    )
    report = make_report(groups)
    right = {kind: round(f.accuracy * f.num_tasks) for kind, f in report.by_kind.items()}
    assert right == {
        "count_circles": 15,
        "count_pentagons": 9,  # of 10
        "grid": 20,
        "line_intersection": 30,
        "nested_squares": 20,
        "touching_circles": 20,
    }
    assert report.overall.tool_calls_mean == 1.0
    assert report.overall.stops == {"answered": 115}
    assert all(group.trajectories[0].num_ok_tool_calls == 1 for group in groups)


def test_mathvision_of_one_who_always_says_a(tmp_path):
    path = REAL_DATA / "mathvision" / "testmini.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    config = BenchmarkConfig(
        "mathvision",
        str(path),
        str(tmp_path / "run"),
        protocol="official",
        agent=AgentConfig(rollout=ROLLOUT),
    )
    answers = {row["id"]: "A" for row in rows}
    result = with_script(answering(answers), lambda agent: run_benchmark(config, quiet, agent))
    num_a = sum(row["answer"] == "A" for row in rows)
    assert 0 < num_a < len(rows) == result.num_items == 102
    assert result.main.value == num_a / len(rows)
    levels = {m.name: m.count for m in result.metrics if "/level/" in m.name}
    assert sum(levels.values()) == 102


def test_dynamath_of_one_who_knows_the_first_variants_only(tmp_path):
    path = REAL_DATA / "dynamath" / "samples.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    first = {row["qid"]: row["answer"] for row in rows if row["varid"] == 1}
    answers = {f"q{row['qid']}v{row['varid']}": first[row["qid"]] for row in rows}
    config = BenchmarkConfig(
        "dynamath",
        str(path),
        str(tmp_path / "run"),
        protocol="official",
        agent=AgentConfig(rollout=ROLLOUT),
    )
    result = with_script(answering(answers), lambda agent: run_benchmark(config, quiet, agent))
    verdicts = defaultdict(list)
    for row in rows:
        one, other = first[row["qid"]], row["answer"]
        is_float = row["answer_type"] == "float"
        same = abs(float(one) - float(other)) <= 0.001 if is_float else one == other
        verdicts[row["qid"]].append(same)
    values = {metric.name: metric.value for metric in result.metrics}
    assert result.num_items == 200
    assert values["accuracy"] == sum(map(sum, verdicts.values())) / 200
    assert values["worst_case"] == sum(map(all, verdicts.values())) / 20
    assert 0.1 < values["accuracy"] < 0.9


def test_dynamath_reads_the_same_from_every_layout(tmp_path):
    path = REAL_DATA / "dynamath" / "samples.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["data"] = (path.parent / row["image"]).read_bytes()
    table = [
        {**row, "index": at, "image": base64.b64encode(row["data"]).decode(), "data": ""}
        for at, row in enumerate(rows)
    ]
    tsv(tmp_path / "DynaMath.tsv", table)
    for variant in range(1, 11):
        held = [
            {
                "id": str(row["qid"]),
                "question": row["question"],
                "image": row["image"],
                "decoded_image": {"bytes": row["data"], "path": None},
                "ground_truth": row["answer"],
                "answer_type": row["answer_type"],
                "subject": row["subject"],
                "knowledge_level": row["knowledge_level"],
            }
            for row in rows
            if row["varid"] == variant
        ]
        parquet(tmp_path / "hf" / f"sample_variant{variant}-00000-of-00001.parquet", held)
    cache = ImageCache(tmp_path / "cache")
    places = (path, tmp_path / "DynaMath.tsv", tmp_path / "hf")
    layouts = [
        {
            item.id: (
                item.task.question,
                item.task.answer,
                item.cluster,
                item.member,
                item.task.images[0].read_bytes(),
            )
            for item in read_items(DYNAMATH, Source(place, cache))
        }
        for place in places
    ]
    assert len(layouts[0]) == 200
    assert layouts[0] == layouts[1] == layouts[2]


@pytest.mark.parametrize(
    ("name", "file"),
    [("mathvision", "mathvision/testmini.jsonl"), ("dynamath", "dynamath/samples.jsonl")],
)
def test_the_tiny_policy_plays_real_items(name, file, tmp_path):
    config = BenchmarkConfig(
        name,
        str(REAL_DATA / file),
        str(tmp_path / "run"),
        model="tiny",
        limit=3,
        policy=PolicyConfig("", pixels=PIXELS),
        agent=AgentConfig(
            sandbox=SANDBOX, rollout=replace(ROLLOUT, max_tool_calls=1, max_completion_tokens=24)
        ),
    )
    result = asyncio.run(run_benchmark(config, quiet))
    # DynaMath is played in whole seeds: at least one, all its ten variants.
    assert result.num_items == (3 if name == "mathvision" else 10)
    assert sum(result.stops.values()) == result.num_items
    assert (tmp_path / "run" / "predictions.tsv").exists()


def vsibench(tmp_path):
    """Two rows about a real clip of 132 frames, in the released layout."""
    scene = tmp_path / "scannet" / "scene0000_00.mp4"
    scene.parent.mkdir()
    shutil.copy(REAL_DATA / "videos" / "bigbuckbunny.mp4", scene)
    row = {
        "dataset": "scannet",
        "scene_name": "scene0000_00",
        "question": "How many frames are there?",
        "options": None,
    }
    rows = [
        {**row, "id": 0, "question_type": "object_counting", "ground_truth": "132"},
        {**row, "id": 1, "question_type": "room_size_estimation", "ground_truth": "120"},
    ]
    path = parquet(tmp_path / "test-00000-of-00001.parquet", rows)
    return BenchmarkConfig(
        "vsibench",
        str(path),
        str(tmp_path / "run"),
        protocol="official",
        agent=AgentConfig(rollout=ROLLOUT),
    )


def counting(context):
    if not context.turns:
        return "<code>\n```python\nprint(len(video_clue_0))\n```\n</code>"
    text = context.turns[0].observation.text
    printed = text.partition("Text Result:\n")[2].partition("<")[0].strip()
    return f"<answer>\n\\boxed{{{printed}}}\n</answer>"


def test_vsibench_on_a_real_clip(tmp_path):
    prompts = []

    def counting_and_listening(context):
        prompts.append(context.prompt)
        return counting(context)

    config = vsibench(tmp_path)
    result = with_script(counting_and_listening, lambda agent: run_benchmark(config, quiet, agent))
    values = {metric.name: metric.value for metric in result.metrics}
    # 132 frames: right, and 10 % off a gold of 120, which nine of ten thresholds allow
    assert values["accuracy/object_counting"] == 1.0
    assert values["accuracy/room_size_estimation"] == pytest.approx(0.9)
    assert result.main.value == pytest.approx(0.95)
    assert result.behaviour["visual_tokens_mean"] == 0
    # What the paper gives: size, frames, rate, the variable's name, and no frame.
    for said in ("1280 x 720, 132 frames, 25 fps", "video_clue_0"):
        assert said in prompts[0].text
    assert prompts[0].images == ()


def test_vsibench_without_the_tool_shows_frames(tmp_path):
    seen = []

    def guess(context):
        seen.append(context.prompt)
        return "<answer>\n\\boxed{132}\n</answer>"

    config = vsibench(tmp_path)
    frames = replace(ROLLOUT, video=VideoConfig(num_frames=3))
    config = replace(config, tool="without", agent=AgentConfig(rollout=frames))
    result = with_script(guess, lambda agent: run_benchmark(config, quiet, agent))
    assert [len(prompt.images) for prompt in seen] == [3, 3]
    assert "<code>" not in seen[0].text
    assert result.behaviour["tool_calls_mean"] == 0
    assert result.behaviour["visual_tokens_mean"] == seen[0].num_visual_tokens > 0
    # A run may be of the hybrid context too: frames to begin with, and the tool.
    hybrid = replace(ROLLOUT, video=VideoConfig("hybrid", num_frames=2))
    config = replace(
        config, tool="with", out=str(tmp_path / "hybrid"), agent=AgentConfig(rollout=hybrid)
    )
    result = with_script(counting, lambda agent: run_benchmark(config, quiet, agent))
    assert result.main.value == pytest.approx(0.95)
    assert result.behaviour["visual_tokens_mean"] > 0
