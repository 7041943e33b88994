"""T2T-ViT's blocks in training on processors: native code around and between their matrix products, in both directions, see
`native/token_training.py`.
"""

from typing import Any

import torch
from torch import Tensor, nn

from foveate.layers.mlp import Mlp
from foveate.layers.products import linear_product
from foveate.layers.recomputing import compute_dtype
from foveate.layers.watching import is_recorded
from foveate.models.t2t_vit import Attention, Block
from foveate.speed.joined.blocks import filled_up
from foveate.speed.joined.halves import Half, before, filled, gradients, run, to_weight
from foveate.speed.joined.joinable import (
    InTraining,
    are_float32,
    are_token_layers,
    has_weights,
    is_for_chains,
    is_in_one_mode,
    records_gradients,
    way_back,
)
from foveate.speed.joined.parts import parts_of
from foveate.speed.native import token_training as native
from foveate.speed.native.token_training import Branch, Norm
from foveate.speed.native.tokens import attend
from foveate.speed.native.training import NONE, Dropped


class JoinedTokenTrainingBlock(InTraining, Block):
    """The block's equation with everything between its matrix products joined, with gradients: (B, T, D) -> (B, T, D).

    Numbers and gradients are those of the block up to rounding, but the MLP's dropout, whose masks are never in memory, has another
    generator, seeded from PyTorch's. Kept for the backward pass are the tokens, the sum after the attention, its queries, keys, values,
    outcome and two numbers for each query and head, and what enters GELU. Gradients can neither be differentiated once more, as in the
    layers' own training, nor be taken in batches: a block in evaluation goes through its layers wherever gradients are recorded. So does
    what the native code is not made for, as in `JoinedTokenBlock`.
    """

    LAYERS = Block
    KIND = "blocks joined: native attention and passes around the matrix products, forward and backward"
    can_join = staticmethod(native.can_join)

    attn: Attention
    mlp: Mlp

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Whether `module` is a block on the processor, in float32, of the layers that the native code computes."""
        return type(module) is Block and _is_joinable(module) and are_float32(module.parameters())

    def forward(self, x: Tensor) -> Tensor:
        if is_recorded() or not (parts := parts_of(self)).says(_is_joinable) or not self._takes(x, parts.parameters):
            return super().forward(x)
        dtype, mlp = compute_dtype(self.attn.proj.weight), self.mlp
        ones = torch.ones(len(x), 1, 1, dtype=torch.float32, device="cpu")
        factors = self.drop_path1(ones), self.drop_path2(ones)
        dropped = Dropped.by(mlp.inner_drop), Dropped.by(mlp.drop)
        products = (layer.weight.to(dtype) for layer in (self.attn.qkv, self.attn.proj, mlp.fc1, mlp.fc2))
        norms: list[Any] = [self.norm1, self.norm2]
        small = (weight for norm in norms for weight in (norm.weight, norm.bias))
        biases = self.attn.proj.bias, mlp.fc1.bias, mlp.fc2.bias
        eps = norms[0].eps, norms[1].eps
        with torch.autocast("cpu", enabled=False):
            y: Tensor = _Joined.apply(x, self.attn.num_heads, eps, dropped, factors, *products, *small, *biases)
        return y

    def _takes(self, x: Tensor, parameters: list[nn.Parameter]) -> bool:
        if x.dim() != 3 or x.shape[-1] != len(self.attn.proj.weight) or (not self.training and records_gradients(x, parameters)):
            return False
        if not are_float32([x, *parameters]) or not is_for_chains(x, parameters):
            return False
        return native.can_join(compute_dtype(self.attn.proj.weight))


def _is_joinable(block: Any) -> bool:
    """Whether a block's layers are what the native code computes, and all in training or all in evaluation."""
    if not are_token_layers(block) or block.attn.qkv.bias is not None:
        return False
    return has_weights(block.norm1) and has_weights(block.norm2) and is_in_one_mode(block)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients to what `_Joined` is given."""
    x, asked, peaks, attended, s, hidden, qkv, proj, fc1, fc2, *factors, gain1, shift1, gain2, shift2, fc1_bias = ctx.saved_tensors
    wanted = ctx.needs_input_grad[5:9]
    attention, mlp = Branch(None, factors[0], NONE), Branch(None, factors[1], ctx.dropped[1])
    half = Half(proj, fc1, fc2, attention, Norm(gain2, shift2, ctx.eps[1]), fc1_bias, ctx.dropped[0], mlp)
    to = gradients(gradient, s, hidden, attended, half, wanted[1:])
    heads = peaks.shape[1]
    inner = native.attend_gradients(asked, attended, peaks, to.attended, _no_bias(heads, proj), _scale(heads, proj))
    normal = before(inner, qkv)
    to_x, *to_norm1 = native.norm_gradients(x, to.tokens, normal, Norm(gain1, shift1, ctx.eps[0]))
    products = to_weight(inner, normal, wanted[0]), to.proj, to.fc1, to.fc2
    return to_x, *(None,) * 4, *products, *to_norm1, to.gain, to.shift, to.proj_bias, to.fc1_bias, to.fc2_bias


class _Joined(torch.autograd.Function):
    """x (B, T, D) -> (B, T, D).

    `eps` of both norms; `dropped`, of what leaves GELU and of what is added at the end; `factors` of both branches, one for each picture;
    the weights of the four products; then gain and shift of both norms, and the biases of the last three products.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        heads: int,
        eps: tuple[float, float],
        dropped: tuple[Dropped, Dropped],
        factors: tuple[Tensor, Tensor],
        qkv: Tensor,
        proj: Tensor,
        fc1: Tensor,
        fc2: Tensor,
        *small: Tensor,
    ) -> Tensor:
        x, (gain1, shift1, gain2, shift2, proj_bias, fc1_bias, fc2_bias) = x.contiguous(), map(filled, small)
        asked = linear_product(native.norm(x, Norm(gain1, shift1, eps[0]), qkv.dtype), qkv)
        peaks = torch.empty(len(x), heads, x.shape[1], 2, dtype=torch.float32, device="cpu")
        attended = attend(asked, heads, _no_bias(heads, proj), _scale(heads, proj), peaks)
        fc1_bias = fc1_bias.clone()  # the only weight that the way back reads, and that of the layers does not
        attention, mlp = Branch(proj_bias, factors[0], NONE), Branch(fc2_bias, factors[1], dropped[1])
        half = Half(proj, fc1, fc2, attention, Norm(gain2, shift2, eps[1]), fc1_bias, dropped[0], mlp)
        s, hidden, y = run(x, attended, half)
        ctx.eps, ctx.dropped = eps, dropped
        ctx.save_for_backward(x, asked, peaks, attended, s, hidden, qkv, proj, fc1, fc2, *factors, gain1, shift1, gain2, shift2, fc1_bias)
        return y

    backward = staticmethod(way_back(_backward))


def _scale(heads: int, proj: Tensor) -> float:
    return (proj.shape[1] // heads) ** -0.5


def _no_bias(heads: int, proj: Tensor) -> Tensor:
    """What native attention adds to queries, keys and values."""
    return filled_up(torch.zeros(3, heads, proj.shape[1] // heads, dtype=torch.float32, device="cpu"))
