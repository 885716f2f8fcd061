"""The factor on the loss that keeps small gradients inside float16's range.

As in torch.amp.GradScaler: half after a gradient that overflows, twice after many that do not. All of it
stays on the device, so that a step never waits.
"""

from typing import Final

import torch
from torch import Tensor

_FIRST: Final = 2.0**16
_LEAST: Final = 1.0  # an overflow at this factor is one of the training, not of float16
_MOST: Final = 2.0**24
_STEPS_TO_DOUBLE: Final = 2000


class LossScale:
    """The factor, and the number of steps since it changed."""

    def __init__(self, device: torch.device) -> None:
        self.factor = torch.full((), _FIRST, device=device)
        self.steps = torch.zeros((), dtype=torch.int64, device=device)

    def may_fall(self) -> Tensor:
        """True while a gradient that overflows can be one of float16's range."""
        return self.factor > _LEAST

    def update(self, overflowed: Tensor) -> None:
        """After a step; `overflowed` is a bool on the device."""
        steps = torch.where(overflowed, 0, self.steps + 1)
        is_long = steps >= _STEPS_TO_DOUBLE
        grown = torch.where(is_long, (2 * self.factor).clamp(max=_MOST), self.factor)
        self.factor = torch.where(overflowed, (self.factor / 2).clamp(min=_LEAST), grown)
        self.steps = torch.where(is_long, 0, steps)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"loss_scale.factor": self.factor, "loss_scale.steps": self.steps}

    def load(self, state: dict[str, Tensor]) -> None:
        """Takes its tensors out of what a checkpoint kept. Raises KeyError where they are not there."""
        self.factor.copy_(state.pop("loss_scale.factor"))
        self.steps.copy_(state.pop("loss_scale.steps"))
