import asyncio
from collections import Counter

import pytest
from PIL import Image

from pyvision_rl.errors import ConfigError, SelectionError
from pyvision_rl.rl.select import (
    SelectConfig,
    baseline_of,
    collect,
    drop_reason,
    drop_reasons,
    is_full,
    select,
    why_left_out,
)
from pyvision_rl.types import Group, KeptGroup, Reward, StopReason
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


@pytest.mark.parametrize(
    "stop", [StopReason.MAX_TOKENS, StopReason.MAX_IMAGES, StopReason.NO_ACTION]
)
def test_broken_trajectories_are_dropped_but_count_for_the_spread(stop):
    broken = group((1, 0), (0, 0), (0, 0), stops={2: stop})
    (kept,) = select([broken], CONFIG).kept
    assert kept.indices == (0, 1)
    assert broken.reward_mean == pytest.approx(1 / 3)
    assert select([broken], CONFIG).dropped == {stop.value: 1}
    keep_all = SelectConfig(oversample=4, num_groups=2, drop_stops=())
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


def test_collect_names_tasks_that_could_not_be_played():
    async def draw(num_groups):
        return []

    config = SelectConfig(oversample=4, num_groups=2, max_rounds=2)
    with pytest.raises(SelectionError, match=r"0 groups drawn in 2 .* dropped: skipped_task 8$"):
        asyncio.run(collect(draw, config))


def test_collect_names_the_reasons_when_nothing_is_usable():
    async def draw(num_groups):
        return [CONSTANT] * num_groups

    config = SelectConfig(oversample=4, num_groups=2, max_rounds=2)
    with pytest.raises(SelectionError, match=r"8 groups drawn in 2 rounds, 0 usable.*constant 8"):
        asyncio.run(collect(draw, config))


def test_fewer_usable_groups_than_the_least_stop_the_run():
    async def draw(num_groups):
        return [CONSTANT] * (num_groups - 2) + [WIDE]

    config = SelectConfig(oversample=4, num_groups=3, min_groups=2, max_rounds=1)
    # three drawn of four asked for: one of them usable, one task that could not be played
    message = (
        r"^3 groups drawn in 1 rounds, 1 usable, at least 2 needed; dropped: .*skipped_task 1$"
    )
    with pytest.raises(SelectionError, match=message):
        asyncio.run(collect(draw, config))


def test_trajectories_of_no_group_at_all_are_not_enough():
    async def draw(count):
        return []

    with pytest.raises(SelectionError, match="0 groups drawn in 3 rounds, 0 usable"):
        asyncio.run(collect(draw, TRAJECTORIES))


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
    with pytest.raises(ConfigError, match="oversample: 4 in max_rounds=2 can never"):
        SelectConfig(oversample=4, num_groups=9, max_rounds=2, unit="trajectory")
    with pytest.raises(ConfigError, match="baseline: kept needs unit=group"):
        SelectConfig(unit="trajectory", baseline="kept")
    with pytest.raises(ConfigError, match="max_staleness: -1"):
        SelectConfig(max_staleness=-1)
    with pytest.raises(ConfigError, match="max_rounds: 0"):
        SelectConfig(max_rounds=0)


@pytest.mark.parametrize("stop", ["code_error", "max_turns", "max_images"])
def test_every_ending_has_its_own_switch(stop):
    member = trajectory(stop=StopReason(stop))
    only = SelectConfig(drop_stops=(stop,))
    others = SelectConfig(drop_stops=("no_action", "max_tokens"))
    assert drop_reason(member, only) == stop
    assert drop_reason(member, others) is None


def test_right_answers_below_the_mean_are_dropped_when_asked():
    # rewards 1.4, 1.0, 0: mean 0.8; then 1.4, 1.4, 1.0: mean 1.267, the short right one is below
    config = SelectConfig(drop_right_negative=True)
    assert drop_reasons(group((1, 0.4), (1, 0), (0, 0)), config) == (None, None, None)
    below = group((1, 0.4), (1, 0.4), (1, 0))
    assert drop_reasons(below, config) == (None, None, "right_negative")
    assert drop_reasons(below, CONFIG) == (None, None, None)
    # right from one half: rewards 1.4, 1.4 and 0.5 or 0.4
    assert drop_reasons(group((1, 0.4), (1, 0.4), (0.5, 0)), config)[2] == "right_negative"
    assert drop_reasons(group((1, 0.4), (1, 0.4), (0.4, 0)), config)[2] is None
    # what broke is named as broken
    broken = group((1, 0.4), (1, 0.4), (1, 0), stops={2: StopReason.NO_ACTION})
    assert drop_reasons(broken, config)[2] == "no_action"


@pytest.mark.parametrize("baseline", ["played", "kept"])
def test_constant_groups_stay_when_asked(baseline):
    config = SelectConfig(oversample=4, num_groups=1, drop_constant=False, baseline=baseline)
    # constant from the start, and constant among those that are kept
    broken = group((1, 0), (1, 0), (0, 0), stops={2: StopReason.NO_ACTION})
    assert select([CONSTANT], config).kept == (KeptGroup(CONSTANT, (0, 1)),)
    assert select([broken], config).kept == (KeptGroup(broken, (0, 1)),)
    assert why_left_out(CONSTANT, 0, config) == "group/ranked_below"


def test_a_baseline_over_the_kept_drops_what_is_constant_among_them():
    # rewards 1, 1, 0 with the 0 broken: the spread is the broken one's, none is left without it
    broken = group((1, 0), (1, 0), (0, 0), stops={2: StopReason.NO_ACTION})
    kept_only = SelectConfig(oversample=4, num_groups=2, baseline="kept")
    assert select([broken], CONFIG).kept == (KeptGroup(broken, (0, 1)),)
    assert select([broken], kept_only).dropped == {"no_action": 1, "group/constant": 1}
    assert baseline_of(broken, CONFIG) == (0, 1, 2)
    assert baseline_of(broken, kept_only) == (0, 1)


def test_ranking_by_the_spread_of_the_baseline():
    # all played: 1, 0, 0 spreads 0.471, 1.1, 0 spreads 0.55; kept: 1, 0 spreads 0.5 still below
    # 1.1, 0; but with the broken 0 of the second gone its 1.1, 1 spreads 0.05
    first = group((1, 0), (0, 0), (0, 0), stops={2: StopReason.NO_ACTION})
    second = group((1, 0.1), (1, 0), (0, 0), stops={2: StopReason.NO_ACTION})
    played = select([first, second], SelectConfig(oversample=4, num_groups=1))
    kept = select([first, second], SelectConfig(oversample=4, num_groups=1, baseline="kept"))
    assert played.kept[0].group is second  # sqrt((0.4^2 + 0.3^2 + 0.7^2) / 3) = 0.497 > 0.471
    assert kept.kept[0].group is first


TRAJECTORIES = SelectConfig(oversample=2, num_groups=2, unit="trajectory", max_rounds=3)


def test_trajectories_are_counted_and_the_last_group_is_split():
    # 2 groups of 4 are wanted: 8 trajectories. By spread: 0.5 (4 of 4), 0.433 (3 of 4 unbroken),
    # 0.05 (1 of 2 places is left, the other 3 are cut), a second one of 0.05 whole
    half = group((1, 0), (1, 0), (0, 0), (0, 0))
    quarter = group((1, 0), (1, 0), (1, 0), (0, 0), stops={3: StopReason.MAX_TOKENS})
    narrow = group((1, 0.2), (1, 0.2), (1, 0.1), (1, 0.1))
    twin = group((1, 0.2), (1, 0.1), (1, 0.2), (1, 0.1))
    selection = select([narrow, quarter, half, twin], TRAJECTORIES)
    assert selection.kept == (
        KeptGroup(half, (0, 1, 2, 3)),
        KeptGroup(quarter, (0, 1, 2)),
        KeptGroup(narrow, (0,)),
    )
    assert selection.dropped == {"max_tokens": 1, "ranked_below": 3, "group/ranked_below": 1}
    assert selection.surplus == (twin,)
    assert is_full(selection, TRAJECTORIES)


def test_trajectories_accumulate_over_rounds():
    # 2 x 2 are wanted; a round gives one usable group of 2
    asked = []

    async def draw(count):
        asked.append(count)
        return [WIDE, CONSTANT]

    selection = asyncio.run(collect(draw, TRAJECTORIES))
    assert asked == [2, 2]
    assert [kept.indices for kept in selection.kept] == [(0, 1), (0, 1)]


def test_carried_groups_stand_in_for_drawn_ones_and_fresh_ones_win_ties():
    twin = group((1, 0.1), (0, 0))
    asked = []

    async def draw(count):
        asked.append(count)
        return [NARROW, WIDE, CONSTANT][:count]

    config = SelectConfig(oversample=4, num_groups=2, max_staleness=1)
    selection = asyncio.run(collect(draw, config, [twin]))
    assert asked == [3]
    assert [kept.group for kept in selection.kept] == [WIDE, twin]
    assert selection.kept[1].group is twin
    assert selection.drawn == (NARROW, WIDE, CONSTANT)
    assert selection.surplus == (NARROW,)


def test_even_with_a_full_surplus_a_steps_worth_is_drawn_anew():
    asked = []

    async def draw(count):
        asked.append(count)
        return [WIDE] * count

    asyncio.run(collect(draw, CONFIG, [MIDDLE] * 4))
    assert asked == [2]


def test_carried_groups_save_draws_in_the_first_round_alone():
    asked = []

    async def draw(count):
        asked.append(count)
        return [CONSTANT] * count

    config = SelectConfig(oversample=4, num_groups=2, max_rounds=3)
    assert len(asyncio.run(collect(draw, config, [WIDE])).kept) == 1
    assert asked == [3, 4, 4]


def test_what_a_carried_group_dropped_is_counted_once():
    broken = group((1, 0), (0, 0), (0, 0), stops={2: StopReason.NO_ACTION})
    selection = select([WIDE], CONFIG, [broken])
    assert [kept.indices for kept in selection.kept] == [(0, 1), (0, 1)]
    assert selection.dropped == {}


def test_the_reason_on_record():
    broken = group((1, 0), (0, 0), (0, 0), stops={2: StopReason.NO_ACTION})
    assert why_left_out(broken, 2, CONFIG) == "no_action"
    assert why_left_out(broken, 0, CONFIG) == "group/ranked_below"
    assert why_left_out(CONSTANT, 0, CONFIG) == "group/constant"
    # rewards 1, 1 and a broken 0: constant among those that the baseline is of
    kept_only = SelectConfig(oversample=4, num_groups=2, baseline="kept")
    narrow = group((1, 0), (1, 0), (0, 0), stops={2: StopReason.NO_ACTION})
    assert why_left_out(narrow, 0, kept_only) == "group/constant"
    assert why_left_out(narrow, 0, CONFIG) == "group/ranked_below"
