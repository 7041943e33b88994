"""FViT's blocks for inference on processors: native chains and matrix products, see `native/{chains,feed_forward}.py`."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.layers.feedforward import MultiPathFeedForward
from foveate.layers.gabor import BakedGaborFilter
from foveate.layers.products import add_product, linear_product
from foveate.layers.recomputing import compute_dtype
from foveate.layers.watching import is_recorded
from foveate.models.fvit import BionicFocalVisionBlock
from foveate.speed.joined.joinable import Packed, are_chains, are_for_chains, is_for_chains, readable, records_gradients
from foveate.speed.joined.parts import parts_of
from foveate.speed.native import feed_forward as native_feed_forward
from foveate.speed.native.chains import FilteringWeights, MixingWeights, can_join, filter_groups, mix
from foveate.speed.native.library import LANES, has_products

HIDDEN_NUMBERS = 2**22
"""So many numbers of the hidden map are in memory at a time at most around products of PyTorch's, but always those of one picture."""


class JoinedBlock(Packed, BionicFocalVisionBlock):
    """The block's equation with everything between its matrix products joined, where `has_products` with these: (B, H, W, C) -> same.

    A block becomes one by `join`; names of modules and parameters stay, and weights that change are taken up (not those changed through
    `.data`, see `Packed`). What the chains are not made for goes through the block's own layers: other devices, number formats
    other than float32 and bfloat16 (autocast's counts), gradients, training, dropout in evaluation, tracing, compiling, counting, and
    layers that somebody has hooked or replaced.
    """

    KIND = "blocks joined: native chains and products"

    mixer: BakedGaborFilter
    ffn: MultiPathFeedForward

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Whether `module` is a block in evaluation, on the processor, of the layers that the chains compute, as `optimize` leaves it."""
        return type(module) is BionicFocalVisionBlock and _is_joinable(module) and are_for_chains(module.parameters())

    @staticmethod
    def can_join(dtype: torch.dtype) -> bool:
        """Whether the native code could be compiled here for this number format; the first call does it."""
        return can_join(dtype) and (not has_products(dtype) or native_feed_forward.can_join(dtype))

    def forward(self, x: Tensor) -> Tensor:
        if is_recorded() or not (parts := parts_of(self)).says(_is_joinable) or not self._takes(x, parts.parameters):
            return super().forward(x)
        mixing, filtering = self.kept(parts.parameters)
        dtype = compute_dtype(self.ffn.fc1.weight)
        rows, columns = self.ffn.fc1.weight.to(dtype), self.ffn.fc2.weight.to(dtype)
        with torch.autocast("cpu", enabled=False):
            y, normal = mix(x.to(dtype).contiguous(), mixing)
            if native_feed_forward.fits(rows, columns):
                native_feed_forward.feed_forward(normal, y, readable(rows), readable(columns), filtering)
                return y
            pictures = max(1, HIDDEN_NUMBERS // (x.shape[1] * x.shape[2] * len(rows)))
            for entering, leaving in zip(normal.split(pictures), y.split(pictures), strict=True):
                hidden = linear_product(entering, rows)
                filter_groups(hidden, filtering)
                add_product(leaving.flatten(0, 2), hidden.flatten(0, 2), columns)
        return y

    def _takes(self, x: Tensor, parameters: list[nn.Parameter]) -> bool:
        if x.dim() != 4 or x.shape[-1] != len(self.position.weight) or records_gradients(x, parameters):
            return False
        return is_for_chains(x, parameters) and self.can_join(compute_dtype(self.ffn.fc1.weight))

    def setting(self) -> object:
        return self.token_order, self.norm1.eps, self.norm2.eps, self.mixer.activation

    def pack(self) -> tuple[MixingWeights, FilteringWeights]:
        return _mixing_weights(self), _filtering_weights(self.ffn)


def _is_joinable(block: Any) -> bool:
    """Whether a block's layers are in evaluation, and what the chains compute, its later norm folded into the feed-forward."""
    if not are_chains(block, BakedGaborFilter) or block.norm2.weight is not None:
        return False
    quiet = block.position, block.mixer, block.ffn, block.ffn.drop, block.drop_path1, block.drop_path2
    return not any(module.training for module in quiet)


def _mixing_weights(block: Any) -> MixingWeights:
    width = block.position.out_channels
    filled, mixer, norm = -(-width // LANES) * LANES, block.mixer, block.norm1
    position = _taps(block.position.weight, filled)
    position[4, :width] += 1
    return MixingWeights(
        position,
        filled_up(block.position.bias, filled),
        filled_up(norm.weight, filled),
        filled_up(norm.bias, filled),
        _taps(mixer.weight, filled),
        filled_up(mixer.bias, filled),
        filled_up(block.ffn.fc2.bias, filled),
        mixer.weight.shape[-1],
        mixer.activation,
        block.token_order == "released",
        (norm.eps, block.norm2.eps),
    )


def _filtering_weights(ffn: MultiPathFeedForward) -> FilteringWeights:
    groups = ffn.fc1.bias.unflatten(0, (ffn.num_paths, -1))
    filled = -(-groups.shape[-1] // LANES) * LANES
    paths: list[Any] = list(ffn.paths)
    taps = torch.stack([_taps(path.weight, filled) for path in paths])
    return FilteringWeights(filled_up(groups, filled), taps, torch.stack([filled_up(path.bias, filled) for path in paths]))


def _taps(weight: Tensor, filled: int) -> Tensor:
    """Kernels (C, 1, k, k) as (k * k, `filled`)."""
    return filled_up(weight.flatten(1).t(), filled)


def filled_up(values: Tensor, filled: int = 0) -> Tensor:
    """A copy in float32, contiguous, with zeros behind the last axis up to `filled`, or up to whole groups of `LANES`."""
    filled = filled or -(-values.shape[-1] // LANES) * LANES
    return F.pad(values.detach().float(), (0, filled - values.shape[-1])).clone(memory_format=torch.contiguous_format)
