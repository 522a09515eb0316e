"""On the path of a Python whose torch is a CPU build and whose torchvision is PyPI's CUDA build.

Its library does not load there; its Python part suffices for images, once the operators that it
describes are declared.
"""

import torch

library = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
