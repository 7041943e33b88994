"""T2T-ViT's blocks for inference on processors: native code around and between their matrix products, see `native_tokens.py`."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.layers.mlp import Mlp
from foveate.layers.recomputing import compute_dtype, is_untouched
from foveate.models.t2t_vit import Attention, Block
from foveate.speed import native_tokens as native
from foveate.speed.joinable import Packed, are_for_chains, are_token_layers, is_for_chains, is_recorded, records_gradients
from foveate.speed.joining import filled_up


class Biases(NamedTuple):
    """Of a block's linear layers, in float32, filled up as the native code reads them."""

    qkv: Tensor
    """(3, heads, width of a head filled up)."""
    proj: Tensor
    fc1: Tensor
    fc2: Tensor


class JoinedTokenBlock(Packed, Block):
    """The block's equation, softmax attention included, in four products and five passes: (B, T, D) -> (B, T, D).

    Under autocast tokens that come in float32 stay so from block to block, as through the layers.
    A block becomes one by `join`; names of modules and parameters stay, weights that change are taken up. What the native code is not made
    for goes through the block's own layers, as in `JoinedBlock`.
    """

    KIND = "blocks joined: native attention and passes around four matrix products"
    can_join = staticmethod(native.can_join)

    attn: Attention
    mlp: Mlp

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Whether `module` is a block in evaluation, on the processor, with plain softmax attention, as `optimize` leaves it."""
        return type(module) is Block and _is_joinable(module) and are_for_chains(module.parameters())

    def forward(self, x: Tensor) -> Tensor:
        parameters = list(self.parameters())
        if is_recorded() or not _is_joinable(self) or not self._takes(x, parameters):
            return super().forward(x)
        biases: Biases = self.kept(parameters)
        dtype = compute_dtype(self.attn.proj.weight)
        qkv, proj, fc1, fc2 = (layer.weight.to(dtype) for layer in (self.attn.qkv, self.attn.proj, self.mlp.fc1, self.mlp.fc2))
        with torch.autocast("cpu", enabled=False):
            x = (x if x.dtype in (dtype, torch.float32) else x.float()).contiguous()
            heads, scale = self.attn.num_heads, (proj.shape[1] // self.attn.num_heads) ** -0.5
            attended = native.attend(F.linear(native.norm(x, self.norm1.eps, dtype), qkv), heads, biases.qkv, scale)
            y, normal = native.add_norm(x, F.linear(attended, proj), (biases.proj, biases.fc2), self.norm2.eps)
            hidden = F.linear(normal, fc1)
            native.activate(hidden, biases.fc1)
            if y.dtype != dtype:
                return y.add_(F.linear(hidden, fc2))
            y.flatten(0, 1).addmm_(hidden.flatten(0, 1), fc2.t())
        return y

    def _takes(self, x: Tensor, parameters: list[nn.Parameter]) -> bool:
        if x.dim() != 3 or x.shape[-1] != len(self.attn.proj.weight) or records_gradients(x, parameters):
            return False
        return is_for_chains(x, parameters) and native.can_join(compute_dtype(self.attn.proj.weight))

    def setting(self) -> object:
        return self.attn.num_heads

    def pack(self) -> Biases:
        qkv, width = self.attn.qkv, self.attn.proj.in_features // self.attn.num_heads
        shift = qkv.weight.new_zeros(len(qkv.weight)) if qkv.bias is None else qkv.bias
        layers: list[Any] = [self.attn.proj, self.mlp.fc1, self.mlp.fc2]
        return Biases(filled_up(shift.view(3, -1, width)), *(filled_up(layer.bias) for layer in layers))


def _is_joinable(block: Any) -> bool:
    """Whether a block's layers are in evaluation, of the kinds that the native code computes, and as they were made."""
    if not are_token_layers(block) or any(module.training for module in block.modules()):
        return False
    return all(is_untouched(norm, nn.LayerNorm) and norm.weight is None for norm in (block.norm1, block.norm2))
