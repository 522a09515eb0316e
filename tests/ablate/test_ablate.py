import asyncio
import math
from dataclasses import replace
from pathlib import Path

import pytest

import pyvision_rl.configs
from pyvision_rl.ablate.config import AblateConfig, Ablation, Arm, all_runs, override, run_of
from pyvision_rl.ablate.dry_run import dry_run_ablations
from pyvision_rl.ablate.report import estimate
from pyvision_rl.ablate.run import run_ablations
from pyvision_rl.cli.parse import parse_config
from pyvision_rl.data.needle_files import NeedleConfig
from pyvision_rl.errors import ConfigError, InputError
from pyvision_rl.eval.stage import EvalConfig
from pyvision_rl.model.hf_engine import EngineConfig
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.policy import PolicyConfig
from pyvision_rl.rl.config import RLConfig
from pyvision_rl.rl.select import SelectConfig
from pyvision_rl.rollout.agent import AgentConfig
from pyvision_rl.rollout.episode import RolloutConfig
from pyvision_rl.sandbox import SandboxConfig

FOLDER = Path(pyvision_rl.configs.__file__).parent
POLICY = PolicyConfig("tiny", PixelLimits(784, 28224))
AGENT = AgentConfig(
    engine=EngineConfig(schedule="barrier"),
    sandbox=SandboxConfig(isolation="best_effort", figures="pixels"),
    rollout=RolloutConfig(prompt="brief", max_tokens=600, max_completion_tokens=60),
)
RL = RLConfig(
    POLICY,
    data="",
    out="",
    num_steps=1,
    group_size=4,
    agent=AGENT,
    select=SelectConfig(oversample=4, num_groups=1),
)
TOOL = Ablation("tool_reward", (Arm("0.1"), Arm("0", ("reward.tool_coef: 0",))))
SORT = Ablation("std_sorting", (Arm("on"), Arm("off", ("select.rank_by_std: false",))))


def config_for(out: Path, *ablations: Ablation, seeds: tuple[int, ...] = (0,)) -> AblateConfig:
    return AblateConfig(
        rl=RL,
        eval=EvalConfig(POLICY, "", "", agent=AGENT),
        out=str(out),
        ablations=ablations,
        seeds=seeds,
        needle=NeedleConfig(num_train=8, num_test=3, mix=(0, 1, 1)),
    )


def test_overrides_are_typed():
    changed = override(RL, ("reward.tool_coef: 0", "agent.rollout.max_tool_calls: 2"))
    assert changed.reward.tool_coef == 0
    assert changed.agent.rollout.max_tool_calls == 2
    assert replace(changed, reward=RL.reward, agent=RL.agent) == RL
    assert override(RL, ()) == RL


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("reward.tool_cof: 0", "there is no key reward.tool_cof"),
        ("seed.x: 0", "there is no key seed.x"),
        ("reward.tool_coef: much", r"Expected `float`, got `str` - at `\$.reward.tool_coef`"),
        ("select.unit: half", "Invalid enum value 'half'"),
        ("group_size: 1", "a group needs at least 2"),
        ("reward.tool_coef", "must be of the form"),
    ],
)
def test_an_override_that_cannot_be_is_refused(line, words):
    with pytest.raises(ConfigError, match=words):
        override(RL, (line,))


def test_runs_that_arms_share_are_made_once(tmp_path):
    config = config_for(tmp_path, TOOL, SORT, seeds=(0, 1))
    titles = [title for title, _ in all_runs(config)]
    # 2 x 2 arms x 2 seeds are 8, but both ablations share the base
    assert titles == [
        "tool_reward = 0.1, seed 0",
        "tool_reward = 0, seed 0",
        "std_sorting = off, seed 0",
        "tool_reward = 0.1, seed 1",
        "tool_reward = 0, seed 1",
        "std_sorting = off, seed 1",
    ]
    assert run_of(config, TOOL.arms[0], 0) == run_of(config, SORT.arms[0], 0)


def test_the_interval_over_seeds():
    # 1, 2, 3: mean 2, s = 1, t(0.975, 2) = 4.3027: 2 +- 4.3027 / sqrt(3)
    found = estimate([1.0, 2.0, 3.0])
    assert (found.mean, found.low, found.high) == pytest.approx((2, -0.4842, 4.4842), abs=1e-3)
    assert math.isnan(estimate([0.5]).low)


def test_impossible_studies_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="ablation x: needs two arms"):
        Ablation("x", (Arm("a"),))
    with pytest.raises(ConfigError, match="tool_reward is there twice"):
        config_for(tmp_path, TOOL, TOOL)
    with pytest.raises(ConfigError, match="seeds"):
        config_for(tmp_path, TOOL, seeds=(1, 1))


def test_the_shipped_study_is_the_papers_four_and_what_it_leaves_open():
    config = parse_config("ablate", AblateConfig, [f"--config={FOLDER}/ablate/tiny.yaml"])
    assert [ablation.name for ablation in config.ablations] == [
        "tool_reward",
        "std_sorting",
        "std_normalisation",
        "turn_budget",
        "drop_without_look",
        "direct_only",
        "paper_code",
        "coefficient_without_failures",
        "coefficient_failures_10_percent",
        "coefficient_failures_15_percent",
        "coefficient_failures_40_percent",
    ]
    # the base, seven changes, and a grid of 12 of which two are there already; three seeds
    assert len(list(all_runs(config))) == 3 * (1 + 7 + 10)
    (code,) = (a.arms[1] for a in config.ablations if a.name == "paper_code")
    changed = override(config.rl, code.overrides)
    preset = [f"--config={FOLDER}/rl/{name}.yaml" for name in ("image_tiny", "paper_code")]
    assert replace(changed, out="") == replace(parse_config("rl", RLConfig, preset), out="")


def test_common_overrides_go_before_an_arms_own():
    arms = (Arm("two"), Arm("three", ("num_steps: 3",)))
    config = replace(
        config_for(Path("x"), Ablation("steps", arms)), common=("num_steps: 2", "group_size: 6")
    )
    two, three = (run_of(config, arm, 0).config for arm in arms)
    assert (two.num_steps, two.group_size) == (2, 6)
    assert (three.num_steps, three.group_size) == (3, 6)


def test_a_dry_run_counts_the_runs(tmp_path):
    config = config_for(tmp_path, TOOL, SORT, seeds=(0, 1))
    (done, begun, *_) = [run.name for _, run in all_runs(config)]
    for name in (done, begun):
        (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "evals" / done).mkdir(parents=True)
    (tmp_path / "evals" / done / "summary.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    found = dry_run_ablations(config, memory_gb=4)
    assert found.ok
    # 4 arms x 2 seeds are 8, the base of both ablations is one run a seed; a step each
    counts = "4 arms x 2 seeds: 6 runs of 6 steps in all, shared ones made once; 1 done, 1 begun"
    assert counts in found.lines
    assert "std_sorting: off (select.rank_by_std: false)" in found.lines
    assert "tool_reward: 0.1 (the base)" in found.lines
    assert "fits: cpu has 4.00 GB" in found.lines
    assert any(line.startswith(f"out: {tmp_path}, ") for line in found.lines)
    assert sorted(tmp_path.rglob("*")) == before
    assert not dry_run_ablations(config, memory_gb=0.001).ok
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").write_text("")
    with pytest.raises(InputError, match="needle data set"):
        dry_run_ablations(config)


@pytest.mark.slow
def test_a_study_goes_on_where_it_stands(tmp_path):
    config = config_for(tmp_path, TOOL)
    steps: list[str] = []
    table = asyncio.run(run_ablations(config, lambda title, *_: steps.append(title)))
    assert steps == ["tool_reward = 0.1, seed 0", "tool_reward = 0, seed 0"]
    lines = table.read_text().splitlines()
    assert lines[2].startswith("| ablation | arm | accuracy | easy |")
    assert [line.split(" | ")[1] for line in lines[4:6]] == ["0.1", "0"]
    figure = tmp_path / "figures" / "tool_reward.png"
    assert figure.stat().st_size > 10_000

    # another ablation later: only its own run is made; an evaluation that was killed goes on
    more = config_for(tmp_path, TOOL, SORT)
    begun = tmp_path / "evals" / run_of(more, TOOL.arms[1], 0).name
    (begun / "summary.json").unlink()
    items = begun / "items.jsonl"
    kept = items.read_bytes().splitlines(keepends=True)[0]
    items.write_bytes(kept)
    asyncio.run(run_ablations(more, lambda title, *_: steps.append(title)))
    assert items.read_bytes().startswith(kept)
    assert items.read_bytes().count(b"\n") == 3
    assert steps[2:] == ["std_sorting = off, seed 0"]
    assert len(table.read_text().split("\n\n")[1].splitlines()) == 6
    assert "Does a look pay?" in table.read_text()


@pytest.mark.slow
def test_an_arm_with_nothing_left_to_learn_from_is_judged_where_it_ends(tmp_path):
    breaks = Ablation(
        "rate", (Arm("low"), Arm("breaks", ("learner.learning_rate: 0.1", "select.max_rounds: 2")))
    )
    config = replace(config_for(tmp_path, breaks), common=("num_steps: 2",))
    steps: list[tuple[str, int]] = []
    table = asyncio.run(run_ablations(config, lambda title, step, *_: steps.append((title, step))))
    assert [step for title, step in steps if "low, seed 0" in title] == [1, 2]
    assert [step for title, step in steps if "breaks, seed 0" in title] == [1]
    assert "| rate | breaks | 0.00 " in table.read_text()
    assert "\n| rate = low | 0 | 2 | " in table.read_text()
    assert "\n| rate = breaks | 0 | 1 | 0.00 " in table.read_text()

    # killed while that arm was judged: it is not trained again
    name = run_of(config, breaks.arms[1], 0).name
    (saved,) = (tmp_path / "runs" / name).glob("checkpoints/step-0000001/checkpoint.json")
    before = saved.stat().st_mtime_ns
    (tmp_path / "evals" / name / "summary.json").unlink()
    asyncio.run(run_ablations(config, lambda *_: None))
    assert saved.stat().st_mtime_ns == before
