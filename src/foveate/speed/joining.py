"""FViT's blocks for inference on processors: two native chains around two matrix products, see `native_chains.py`."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from foveate.layers.feedforward import MultiPathFeedForward
from foveate.layers.gabor import BakedGaborFilter
from foveate.layers.recomputing import compute_dtype
from foveate.models.fvit import BionicFocalVisionBlock
from foveate.speed.native_chains import FORMATS, LANES, FilteringWeights, MixingWeights, filter_groups, mix


class JoinedBlock(BionicFocalVisionBlock):
    """The block's equation with everything between its matrix products joined: (B, H, W, C) -> (B, H, W, C).

    A block becomes one by `join`; names of modules and parameters stay. What the chains are not made for goes through the block's own
    layers: other devices, number formats other than float32 and bfloat16 (autocast's counts), gradients to the input, training,
    tracing, and modules inside that somebody has hooked.
    """

    mixer: BakedGaborFilter
    ffn: MultiPathFeedForward
    mixing: MixingWeights
    filtering: FilteringWeights

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Whether `module` is a block of the layers that the chains compute: a baked filter, several paths, the second norm folded away."""
        if type(module) is not BionicFocalVisionBlock or type(module.mixer) is not BakedGaborFilter:
            return False
        return type(module.ffn) is MultiPathFeedForward and module.norm2.weight is None

    @classmethod
    def join(cls, block: Any) -> None:
        """Makes a block that fits one of these, with its weights as they are now."""
        block.__class__ = cls
        block.mixing, block.filtering = _mixing_weights(block), _filtering_weights(block.ffn)

    # The compiler would look into the call and find nothing it knows; around it, it compiles.
    @torch.compiler.disable
    def forward(self, x: Tensor) -> Tensor:
        dtype = compute_dtype(self.ffn.fc1.weight)
        if not self._is_for_chains(x, dtype):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            y, normal = mix(x.to(dtype).contiguous(), self.mixing)
            hidden = F.linear(normal, self.ffn.fc1.weight.to(dtype))
            filter_groups(hidden, self.filtering)
            y.flatten(0, 2).addmm_(hidden.flatten(0, 2), self.ffn.fc2.weight.to(dtype).t())
        return y

    def _is_for_chains(self, x: Tensor, dtype: torch.dtype) -> bool:
        if self.training or x.device.type != "cpu" or dtype not in FORMATS or not x.numel():
            return False
        if _has_any_global_hook() or (torch.is_grad_enabled() and x.requires_grad):
            return False
        if type(x) is not Tensor or torch.jit.is_tracing():  # type: ignore[attr-defined]
            return False
        inner = (module for module in self.modules() if module is not self)
        return not any(module._forward_hooks or module._forward_pre_hooks for module in inner)


def _mixing_weights(block: Any) -> MixingWeights:
    width = block.position.out_channels
    filled, mixer, norm = -(-width // LANES) * LANES, block.mixer, block.norm1
    position = _taps(block.position.weight, filled)
    position[4, :width] += 1
    return MixingWeights(
        position,
        _filled(block.position.bias, filled),
        _filled(norm.weight, filled),
        _filled(norm.bias, filled),
        _taps(mixer.weight, filled),
        _filled(mixer.bias, filled),
        _filled(block.ffn.fc2.bias, filled),
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
    return FilteringWeights(_filled(groups, filled), taps, torch.stack([_filled(path.bias, filled) for path in paths]))


def _taps(weight: Tensor, filled: int) -> Tensor:
    """Kernels (C, 1, k, k) as (k * k, `filled`)."""
    return _filled(weight.flatten(1).t(), filled)


def _filled(values: Tensor, filled: int) -> Tensor:
    """A copy in float32, contiguous, with zeros behind the last axis up to `filled`."""
    return F.pad(values.detach().float(), (0, filled - values.shape[-1])).clone(memory_format=torch.contiguous_format)
