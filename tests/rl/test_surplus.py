from collections import Counter

from PIL import Image

from pyvision_rl.rl.surplus import Surplus
from pyvision_rl.types import Group, Reward, Selection
from tests.build import TASK, group, observation, trajectory

A, B = group((1, 0.1), (0, 0)), group((1, 0), (0, 0))


def left(*groups: Group) -> Selection:
    return Selection((), (), Counter(), groups)


def test_a_group_is_carried_for_as_many_steps_as_allowed():
    surplus = Surplus(2)
    surplus.renew(left(A), 5)
    assert surplus.groups == (A,)
    assert surplus.staleness([A, B], 6) == [1, 0]
    surplus.renew(left(B, A), 6)  # A is left again: two steps old in step 7, the last it may enter
    assert surplus.groups == (B, A)
    assert surplus.staleness([A, B], 7) == [2, 1]
    surplus.renew(left(A, B), 7)
    assert surplus.groups == (B,)


def test_without_staleness_nothing_is_carried():
    surplus = Surplus(0)
    surplus.renew(left(A), 1)
    assert surplus.groups == ()


def test_saved_groups_come_back_with_images_log_probs_and_age(tmp_path):
    seen = observation(5, images=(Image.new("RGB", (28, 28), (1, 2, 3)),))
    looked = Group(TASK, (trajectory(seen), trajectory()), (Reward(1.0, 0.1), Reward(0.0, 0.0)))
    surplus = Surplus(3)
    surplus.renew(left(A), 1)
    surplus.renew(left(looked, A), 2)
    surplus.save(tmp_path)
    other = Surplus(3)
    other.load(tmp_path)
    assert other.groups == surplus.groups == (looked, A)
    assert other.staleness(other.groups, 3) == [1, 2]


def test_a_folder_without_surplus_is_none(tmp_path):
    surplus = Surplus(3)
    surplus.save(tmp_path)
    surplus.load(tmp_path)
    assert surplus.groups == ()
