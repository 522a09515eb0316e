import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pyvision_rl.model.prefix_tree import merge


def tree_of(*rows):
    return merge([np.array(row, np.int64) for row in rows])


def test_a_common_beginning_stands_there_once():
    tree = tree_of([7, 8, 9], [7, 8, 5, 6], [1, 2], [7, 8, 9])
    # in order: [1 2] at 0-1, [7 8 5 6] at 2-5, [7 8 9] adds 9 at 6, the last adds nothing
    assert tree.order == (2, 1, 0, 3)
    assert [path.tolist() for path in tree.paths] == [[2, 3, 6], [2, 3, 4, 5], [0, 1], [2, 3, 6]]
    assert tree.num_shared == (2, 0, 0, 3)
    assert tree.num_nodes == 7


def test_equal_tokens_after_others_are_not_the_same():
    assert tree_of([1, 5], [2, 5]).num_nodes == 4


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=12))
def test_a_node_is_a_beginning(rows):
    tree = tree_of(*rows)
    beginnings = {tuple(row[: end + 1]) for row in rows for end in range(len(row))}
    assert tree.num_nodes == len(beginnings)
    found = {
        (int(node), tuple(row[: end + 1]))
        for row, path in zip(rows, tree.paths, strict=True)
        for end, node in enumerate(path)
    }
    assert len(found) == len(beginnings)
    # a row's own tokens stand together, behind all that was laid before
    laid = [tree.paths[row][tree.num_shared[row] :] for row in tree.order]
    assert np.concatenate(laid).tolist() == list(range(tree.num_nodes))
