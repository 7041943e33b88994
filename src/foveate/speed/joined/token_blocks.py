"""T2T-ViT's blocks for inference on processors: native code, in float32 with their matrix products, otherwise around and between these.

See `native/token_block.py` and `native/tokens.py`.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.layers.mlp import Mlp
from foveate.layers.recomputing import compute_dtype, is_untouched
from foveate.layers.watching import is_recorded
from foveate.models.t2t_vit import Attention, Block
from foveate.speed.joined.blocks import filled_up
from foveate.speed.joined.joinable import (
    Packed,
    are_float32,
    are_for_chains,
    are_token_layers,
    is_for_chains,
    readable,
    records_gradients,
)
from foveate.speed.joined.parts import parts_of
from foveate.speed.native import token_block as native_token_block
from foveate.speed.native import tokens as native_tokens


class Biases(NamedTuple):
    """Of a block's linear layers, in float32, filled up as the native code reads them."""

    qkv: Tensor
    """(3, heads, width of a head filled up)."""
    proj: Tensor
    fc1: Tensor
    fc2: Tensor


class JoinedTokenBlock(Packed, Block):
    """The block's equation, softmax attention included: (B, T, D) -> (B, T, D).

    In float32 three passes over the tokens, in other formats four products, for which processors may have instructions of their own, and
    five passes. Under autocast tokens that come in float32 stay so from block to block, as through the layers.
    A block becomes one by `join`; names of modules and parameters stay, weights that change are taken up. What the native code is not made
    for goes through the block's own layers, as in `JoinedBlock`.
    """

    KIND = "blocks joined: native attention, norms and products"

    attn: Attention
    mlp: Mlp

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Whether `module` is a block in evaluation, on the processor, with plain softmax attention, as `optimize` leaves it."""
        return type(module) is Block and _is_joinable(module) and are_for_chains(module.parameters())

    @staticmethod
    def can_join(dtype: torch.dtype) -> bool:
        """Whether the native code could be compiled here for this number format; the first call does it."""
        return native_token_block.can_join() if dtype == torch.float32 else native_tokens.can_join(dtype)

    def forward(self, x: Tensor) -> Tensor:
        if not self._is_ready(x):
            return super().forward(x)
        dtype = compute_dtype(self.attn.proj.weight)
        with torch.autocast("cpu", enabled=False):
            return self._in_blocks(x.float().contiguous()) if dtype == torch.float32 else self._around_products(x, dtype)

    def first_token(self, x: Tensor) -> Tensor:
        """The first of the block's tokens alone: (B, T, D) -> (B, 1, D); in float32 without computing the others."""
        if not self._is_ready(x) or not is_untouched(self, JoinedTokenBlock) or compute_dtype(self.attn.proj.weight) != torch.float32:
            y: Tensor = self(x)
            return y[:, :1]
        with torch.autocast("cpu", enabled=False):
            x, width, heads = x.float().contiguous(), x.shape[-1], self.attn.num_heads
            query = self._ask(x[:, :1].contiguous(), slice(width))[..., 0]
            keys, values = self._ask(x, slice(width, None))[..., : x.shape[1]].unflatten(1, (2, heads, -1)).unbind(1)
            weights = (self._scale() * query.unflatten(1, (heads, 1, -1)) @ keys).softmax(dim=-1)
            return self._finish(x[:, :1].contiguous(), (weights @ values.transpose(-1, -2)).flatten(1)[:, None])

    def _in_blocks(self, x: Tensor) -> Tensor:
        attended = native_token_block.attend(self._ask(x, slice(None)), x.shape[1], self.attn.num_heads, self._scale())
        return self._finish(x, attended)

    def _ask(self, x: Tensor, rows: slice) -> Tensor:
        """What `token_block.ask` gives for some rows of the weights of queries, keys and values."""
        qkv, norm = self.attn.qkv, self.norm1
        weight, bias = readable(qkv.weight[rows]), None if qkv.bias is None else readable(qkv.bias[rows])
        return native_token_block.ask(x, weight, bias, norm.eps)

    def _finish(self, x: Tensor, attended: Tensor) -> Tensor:
        layers: list[Any] = [self.attn.proj, self.mlp.fc1, self.mlp.fc2]
        weights, biases = [readable(layer.weight) for layer in layers], [readable(layer.bias) for layer in layers]
        return native_token_block.finish(x, attended, weights, biases, self.norm2.eps)

    def _around_products(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        biases: Biases = self.kept(parts_of(self).parameters)
        qkv, proj, fc1, fc2 = (layer.weight.to(dtype) for layer in (self.attn.qkv, self.attn.proj, self.mlp.fc1, self.mlp.fc2))
        norms: list[Any] = [self.norm1, self.norm2]
        x = (x if x.dtype in (dtype, torch.float32) else x.float()).contiguous()
        normal = native_tokens.norm(x, norms[0].eps, dtype)
        attended = native_tokens.attend(F.linear(normal, qkv), self.attn.num_heads, biases.qkv, self._scale())
        y, normal = native_tokens.add_norm(x, F.linear(attended, proj), (biases.proj, biases.fc2), norms[1].eps)
        hidden = F.linear(normal, fc1)
        native_tokens.activate(hidden, biases.fc1)
        if y.dtype != dtype:
            return y.add_(F.linear(hidden, fc2))
        y.flatten(0, 1).addmm_(hidden.flatten(0, 1), fc2.t())
        return y

    def _scale(self) -> float:
        return (self.attn.proj.in_features // self.attn.num_heads) ** -0.5

    def _is_ready(self, x: Tensor) -> bool:
        """Whether the native code can take these tokens now."""
        if is_recorded() or not (parts := parts_of(self)).says(_is_joinable):
            return False
        parameters = parts.parameters
        if records_gradients(x, parameters) or not is_for_chains(x, parameters):
            return False
        dtype = compute_dtype(self.attn.proj.weight)
        if x.dim() != 3 or x.shape[-1] != len(self.attn.proj.weight) or (dtype == torch.float32 and not are_float32(parameters)):
            return False
        return self.can_join(dtype)

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
