"""What an optimizer steps on where weights have fewer bits than float32."""

import torch

from pyvision_rl.model.masters import Masters


def test_many_small_gradients_add_up():
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    masters = Masters([("weight", weight)])
    for _ in range(300):
        weight.sum().backward()
        masters.take_gradients()
    # bfloat16 has 8 bits: there 256 + 1 is 256
    assert masters.named[0][1].grad == 300
    assert weight.grad is None


def test_a_weight_that_takes_no_part_has_no_gradient():
    weights = [torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16)) for _ in range(2)]
    masters = Masters([("one", weights[0]), ("other", weights[1])])
    weights[0].sum().backward()
    masters.take_gradients()
    assert masters.named[0][1].grad == 1
    assert masters.named[1][1].grad is None
