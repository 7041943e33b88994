"""Padding at the end of a map, so that any height and width divide."""

import torch
import torch.nn.functional as F
from torch import Tensor


def pad_end(x_bchw: Tensor, multiple: int) -> Tensor:
    """Zeros below and to the right until H and W divide by `multiple`: a map of stride s then has ceil(H/s) x ceil(W/s) places.

    While the model is compiled or exported the padding is always written out, by an amount that follows the size: one graph serves all
    sizes.
    """
    bottom, right = (-n % multiple for n in x_bchw.shape[-2:])
    if torch.compiler.is_compiling() or bottom or right:
        return F.pad(x_bchw, (0, right, 0, bottom))
    return x_bchw
