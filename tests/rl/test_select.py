import asyncio
from collections import Counter

import pytest
from PIL import Image

from pyvision_rl.errors import ConfigError, SelectionError
from pyvision_rl.rl.select import SelectConfig, collect, drop_reason, select
from pyvision_rl.types import BROKEN_STOPS, Group, Reward, StopReason
from tests.build import TASK, group, observation, trajectory

CONFIG = SelectConfig(oversample=4, num_groups=2)
WIDE = group((1, 0.1), (0, 0))  # rewards 1.1 and 0: std 0.55
NARROW = group((1, 0.2), (1, 0.1))  # std 0.05
MIDDLE = group((1, 0), (1, 0), (1, 0), (0, 0))  # std sqrt(3)/4 = 0.433
CONSTANT = group((0, 0), (0, 0))


def test_spread_is_the_population_standard_deviation():
    assert WIDE.reward_std == pytest.approx(0.55)
    assert NARROW.reward_std == pytest.approx(0.05)
    assert MIDDLE.reward_std == pytest.approx(0.4330127)


def test_keeps_the_groups_of_widest_spread_in_rank_order():
    selection = select([NARROW, CONSTANT, MIDDLE, WIDE], CONFIG)
    assert [kept.group for kept in selection.kept] == [WIDE, MIDDLE]
    assert selection.dropped == Counter({"group/constant": 1, "group/ranked_below": 1})
    assert selection.drawn == (NARROW, CONSTANT, MIDDLE, WIDE)


def test_without_ranking_the_first_drawn_are_kept():
    config = SelectConfig(oversample=4, num_groups=2, rank_by_std=False)
    selection = select([NARROW, CONSTANT, MIDDLE, WIDE], config)
    assert [kept.group for kept in selection.kept] == [NARROW, MIDDLE]


def test_equal_rewards_that_differ_as_floats_are_constant():
    third = Reward(0.1 + 0.2, 0.0)
    same = Reward(0.3, 0.0)
    assert third.total != same.total
    twins = Group(TASK, (trajectory(), trajectory()), (third, same))
    assert twins.reward_std == 0
    assert select([twins], CONFIG).dropped == {"group/constant": 1}


@pytest.mark.parametrize("stop", sorted(BROKEN_STOPS))
def test_broken_trajectories_are_dropped_but_count_for_the_spread(stop):
    broken = group((1, 0), (0, 0), (0, 0), stops={2: stop})
    (kept,) = select([broken], CONFIG).kept
    assert kept.indices == (0, 1)
    assert broken.reward_mean == pytest.approx(1 / 3)
    assert select([broken], CONFIG).dropped == {stop.value: 1}
    keep_all = SelectConfig(oversample=4, num_groups=2, drop_broken=False)
    assert select([broken], keep_all).kept[0].indices == (0, 1, 2)


def test_a_lost_sandbox_counts_for_nothing():
    lost = group((1, 0), (1, 0), (0, 0), stops={2: StopReason.SANDBOX_LOST})
    assert lost.reward_mean == 1
    assert select([lost], CONFIG).dropped == {"group/constant": 1}


def test_a_group_with_no_trajectory_left_is_dropped():
    stops = {0: StopReason.NO_ACTION, 1: StopReason.MAX_TOKENS}
    selection = select([group((1, 0), (0, 0), stops=stops)], CONFIG)
    assert selection.kept == ()
    assert selection.dropped == {"no_action": 1, "max_tokens": 1, "group/no_trajectory": 1}


def test_drop_without_look_asks_for_an_image_observation():
    config = SelectConfig(oversample=4, num_groups=2, drop_without_look=True)
    blind = trajectory(observation(5))
    looked = trajectory(observation(5, images=(Image.new("RGB", (28, 28)),)))
    assert drop_reason(blind, config) == "without_look"
    assert drop_reason(looked, config) is None
    assert drop_reason(blind, CONFIG) is None


def test_collect_draws_again_until_enough_are_usable():
    rounds = [[CONSTANT] * 3 + [NARROW], [CONSTANT] * 3 + [WIDE]]
    asked = []

    async def draw(num_groups):
        asked.append(num_groups)
        return rounds.pop(0)

    selection = asyncio.run(collect(draw, CONFIG))
    assert asked == [4, 4]
    assert [kept.group for kept in selection.kept] == [WIDE, NARROW]


def test_collect_names_the_reasons_when_nothing_is_usable():
    async def draw(num_groups):
        return [CONSTANT] * num_groups

    config = SelectConfig(oversample=4, num_groups=2, max_rounds=2)
    with pytest.raises(SelectionError, match=r"8 groups drawn in 2 rounds, 0 usable.*constant 8"):
        asyncio.run(collect(draw, config))


def test_fewer_groups_than_wanted_are_taken_after_the_last_round():
    async def draw(num_groups):
        return [CONSTANT] * 3 + [WIDE]

    config = SelectConfig(oversample=4, num_groups=3, max_rounds=2)
    assert len(asyncio.run(collect(draw, config)).kept) == 2


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="oversample: 1"):
        SelectConfig(oversample=1, num_groups=2)
    with pytest.raises(ConfigError, match="min_groups=3"):
        SelectConfig(oversample=4, num_groups=2, min_groups=3)
