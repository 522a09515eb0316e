"""Float32 masters of weights in fewer bits: a small update would vanish in bfloat16's 8 bits."""

from __future__ import annotations

from collections.abc import Iterable

import torch


class Masters:
    """What an optimizer steps on: float32 weights themselves, and float32 copies of the others."""

    def __init__(self, named_parameters: Iterable[tuple[str, torch.nn.Parameter]]) -> None:
        self._copies: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
        self.named: list[tuple[str, torch.Tensor]] = []
        for name, parameter in named_parameters:
            if not parameter.requires_grad:
                continue
            master: torch.Tensor = parameter
            if parameter.dtype != torch.float32:
                master = parameter.detach().float().requires_grad_()
                self._copies.append((parameter, master))
            self.named.append((name, master))

    def take_gradients(self) -> None:
        """Add the gradients to the masters', after every backward pass: a sum in fewer bits would
        lose what the last of many passes add.
        """
        for parameter, master in self._copies:
            if parameter.grad is None:
                continue
            gradient = parameter.grad.float()
            master.grad = gradient if master.grad is None else master.grad.add_(gradient)
            parameter.grad = None

    def give_weights(self) -> None:
        """Round the masters to the model's weights, after a step."""
        with torch.no_grad():
            for parameter, master in self._copies:
                parameter.copy_(master)

    def state(self) -> list[torch.Tensor]:
        """The copies, in order."""
        return [master.detach() for _, master in self._copies]

    def load(self, state: list[torch.Tensor]) -> None:
        """Go back to what `state` gave."""
        with torch.no_grad():
            for (_, master), saved in zip(self._copies, state, strict=True):
                master.copy_(saved)
