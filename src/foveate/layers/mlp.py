"""The MLP of a transformer block, with the layer norm in front of it."""

import torch.nn.functional as F
from torch import Tensor, nn

from foveate.layers.dropout import Dropout
from foveate.layers.recomputing import called, gelu_linear, norm_linear


class Mlp(nn.Module):
    """`fc2(GELU(fc1(norm(x))))`, dropout after GELU and at the end: (..., D) -> (..., D). Parameters are named as in timm's.

    The norm comes along so that training does not keep its output, nor GELU's where no dropout follows it: see `layers/recomputing.py`.

    Args:
        width: D; hidden: width after the first linear.
        inner_drop, drop: rates of the dropout after GELU and at the end.
    """

    def __init__(self, width: int, hidden: int, *, inner_drop: float = 0.0, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.inner_drop = Dropout(inner_drop)
        self.fc2 = nn.Linear(hidden, width)
        self.drop = Dropout(drop)

    def forward(self, x: Tensor, norm: nn.Module) -> Tensor:
        hidden = norm_linear(x, norm, self.fc1)
        if self.inner_drop.training and self.inner_drop.p > 0:
            return self.drop(called(self.fc2, self.inner_drop(F.gelu(hidden))))
        return self.drop(gelu_linear(hidden, self.fc2))
