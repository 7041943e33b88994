"""T2T-ViT's blocks in training on processors: native code around and between their matrix products, in both directions, see
`native_token_training.py`.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from foveate.layers.mlp import Mlp
from foveate.layers.recomputing import compute_dtype
from foveate.models.t2t_vit import Attention, Block
from foveate.speed import native_token_training as native
from foveate.speed.joinable import are_token_layers, is_for_chains, is_recorded, records_gradients
from foveate.speed.joining import filled_up
from foveate.speed.native_library import LANES
from foveate.speed.native_token_training import Branch, Norm
from foveate.speed.native_tokens import attend
from foveate.speed.native_training import Dropped


class JoinedTokenTrainingBlock(Block):
    """The block's equation with everything between its matrix products joined, with gradients: (B, T, D) -> (B, T, D).

    Numbers and gradients are those of the block up to rounding, but the MLP's dropout, whose masks are never in memory, has another
    generator, seeded from PyTorch's. Kept for the backward pass are the tokens, the sum after the attention, its queries, keys, values and
    outcome, and what enters GELU. As in the layers' own training, gradients cannot be differentiated once more: a block in evaluation goes
    through its layers wherever gradients are recorded. So does what the native code is not made for, as in `JoinedTokenBlock`.
    """

    LAYERS = Block
    KIND = "blocks joined: native attention and passes around the matrix products, forward and backward"
    can_join = staticmethod(native.can_join)

    attn: Attention
    mlp: Mlp

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Whether `module` is a block on the processor, in float32, of the layers that the native code computes."""
        return type(module) is Block and _is_joinable(module) and _are_plain_floats(list(module.parameters()))

    @classmethod
    def join(cls, block: Any) -> None:
        """Makes a block that fits one of these; names of modules and parameters stay."""
        block.__class__ = cls

    def forward(self, x: Tensor) -> Tensor:
        if is_recorded() or not _is_joinable(self) or not self._takes(x):
            return super().forward(x)
        dtype, mlp = compute_dtype(self.attn.proj.weight), self.mlp
        ones = torch.ones(len(x), 1, 1, dtype=torch.float32, device="cpu")
        factors = self.drop_path1(ones), self.drop_path2(ones)
        drops = mlp.inner_drop, mlp.drop
        dropped = tuple(Dropped(int(torch.randint(2**63 - 1, ())) if drop.levels else 0, drop.levels, drop.scale) for drop in drops)
        products = (layer.weight.to(dtype) for layer in (self.attn.qkv, self.attn.proj, mlp.fc1, mlp.fc2))
        norms: list[Any] = [self.norm1, self.norm2]
        small = (weight for norm in norms for weight in (norm.weight, norm.bias))
        biases = self.attn.proj.bias, mlp.fc1.bias, mlp.fc2.bias
        eps = norms[0].eps, norms[1].eps
        with torch.autocast("cpu", enabled=False):
            y: Tensor = _Joined.apply(x, self.attn.num_heads, eps, dropped, factors, *products, *small, *biases)
        return y

    def _takes(self, x: Tensor) -> bool:
        parameters = list(self.parameters())
        if x.dim() != 3 or x.shape[-1] != self.attn.proj.in_features or (not self.training and records_gradients(x, parameters)):
            return False
        if not _are_plain_floats([x, *parameters]) or not is_for_chains(x, parameters):
            return False
        return native.can_join(compute_dtype(self.attn.proj.weight))


def _are_plain_floats(tensors: list[Any]) -> bool:
    return all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)


def _is_joinable(block: Any) -> bool:
    """Whether a block's layers are what the native code computes, and all in training or all in evaluation."""
    norms = block.norm1, block.norm2
    if not are_token_layers(block) or block.attn.qkv.bias is not None:
        return False
    if any(norm.weight is None or norm.bias is None for norm in norms):
        return False
    if not all(norm.weight.shape == norm.bias.shape == norm.normalized_shape for norm in norms):
        return False
    return len({module.training for module in block.modules()}) == 1


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
        x, small, dtype = x.contiguous(), tuple(map(_filled, small)), qkv.dtype
        joints = _joints(eps, dropped, factors, small)
        asked = F.linear(native.norm(x, joints.norm1, dtype), qkv)
        attended = attend(asked, heads, _no_bias(heads, proj), _scale(heads, proj))
        s, normal = native.add_norm(x, F.linear(attended, proj), joints.attention, joints.norm2)
        hidden = F.linear(normal, fc1)
        leaving = native.activate(hidden, small[5], dropped[0])
        y = native.add(s, F.linear(leaving, fc2), joints.mlp)
        ctx.heads, ctx.eps, ctx.dropped = heads, eps, dropped
        ctx.save_for_backward(x, asked, attended, s, hidden, qkv, proj, fc1, fc2, *factors, *small)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        with torch.autocast("cpu", enabled=False):
            return _backward(ctx, gradient.contiguous())


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients to what `_Joined` is given."""
    x, asked, attended, s, hidden, qkv, proj, fc1, fc2, *others = ctx.saved_tensors
    heads, small, wanted = ctx.heads, others[2:], ctx.needs_input_grad[5:9]
    joints = _joints(ctx.eps, ctx.dropped, others[:2], small)

    outer, to_fc2_bias = native.add_gradients(gradient, joints.mlp, asked.dtype)
    inner = _before(outer, fc2)
    leaving, to_fc1_bias = native.activate_gradients(hidden, inner, small[5], ctx.dropped[0])
    to_fc2 = _to_weight(outer, leaving, wanted[3])
    del leaving
    normal = _before(inner, fc1)
    to_s, outer, to_proj_bias, *to_norm2 = native.add_norm_gradients(s, gradient, normal, joints.attention, joints.norm2)
    to_fc1 = _to_weight(inner, normal, wanted[2])
    to_proj = _to_weight(outer, attended, wanted[1])
    inner = native.attend_gradients(asked, _before(outer, proj), heads, _no_bias(heads, proj), _scale(heads, proj))
    normal = _before(inner, qkv)
    to_x, *to_norm1 = native.norm_gradients(x, to_s, normal, joints.norm1)
    to_qkv = _to_weight(inner, normal, wanted[0])
    return to_x, *(None,) * 4, to_qkv, to_proj, to_fc1, to_fc2, *to_norm1, *to_norm2, to_proj_bias, to_fc1_bias, to_fc2_bias


class _Joints(NamedTuple):
    """Where branches begin, and where they are added."""

    norm1: Norm
    attention: Branch
    norm2: Norm
    mlp: Branch


def _joints(eps: Any, dropped: Any, factors: Any, small: Any) -> _Joints:
    gain1, shift1, gain2, shift2, proj_bias, _, fc2_bias = small
    attention, mlp = Branch(proj_bias, factors[0], Dropped(0, 0, 1.0)), Branch(fc2_bias, factors[1], dropped[1])
    return _Joints(Norm(gain1, shift1, eps[0]), attention, Norm(gain2, shift2, eps[1]), mlp)


def _scale(heads: int, proj: Tensor) -> float:
    return (proj.shape[1] // heads) ** -0.5


def _filled(weight: Tensor) -> Tensor:
    """As the native code reads it: the weight itself where its width allows, since small copies among large tensors break up the heap."""
    return filled_up(weight) if len(weight) % LANES else weight.contiguous()


def _no_bias(heads: int, proj: Tensor) -> Tensor:
    """What native attention adds to queries, keys and values."""
    return filled_up(torch.zeros(3, heads, proj.shape[1] // heads, dtype=torch.float32, device="cpu"))


def _before(outer: Tensor, weight: Tensor) -> Tensor:
    """The gradient to a product's tokens, (B, T, D), from that to its outcome, (B, T, E), and its weight (E, D)."""
    return (outer.flatten(0, 1) @ weight).unflatten(0, outer.shape[:2])


def _to_weight(outer: Tensor, tokens: Tensor, wanted: bool) -> Tensor | None:
    return outer.flatten(0, 1).t() @ tokens.flatten(0, 1) if wanted else None
