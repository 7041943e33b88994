"""T2T-ViT's token layers in training on processors: native attention and passes behind their convolution, in both directions.

See `native/performer.py` and `joined/halves.py`.
"""

from typing import Any

import torch
from torch import Tensor, nn

from foveate.layers.soft_split import split_response
from foveate.layers.token_layers import TokenPerformer
from foveate.layers.watching import is_recorded
from foveate.speed.joined.halves import Half, filled, gradients, run
from foveate.speed.joined.joinable import (
    InTraining,
    are_float32,
    has_weights,
    is_for_chains,
    is_in_one_mode,
    records_gradients,
    way_back,
)
from foveate.speed.joined.parts import parts_of
from foveate.speed.joined.token_layers import are_performer_layers
from foveate.speed.native import performer as native_performer
from foveate.speed.native import token_training as native_token_training
from foveate.speed.native.library import FORMATS
from foveate.speed.native.token_training import Branch, Norm
from foveate.speed.native.training import Dropped


class JoinedTokenPerformerTraining(InTraining, TokenPerformer):
    """The layer's equation with what lies behind its soft split joined, with gradients: (B, C, H, W) -> (B, T, E).

    Numbers and gradients are those of the layer up to rounding, but its dropout, whose masks are never in memory, has another generator,
    seeded from PyTorch's. Kept for the backward pass are the soft split's response, what the queries read, the sum behind it, and what
    enters GELU; keys, queries and values are made once more. Gradients can neither be differentiated once more nor be taken in batches: a
    layer in evaluation goes through its parts wherever gradients are recorded. So does what the native code is not made for.
    """

    LAYERS = TokenPerformer
    KIND = "token layers joined: native performer attention and passes behind the soft split, forward and backward"

    @staticmethod
    def can_join(dtype: torch.dtype) -> bool:
        """Whether the native code could be compiled here; it computes in float32 whatever `dtype` the other layers have."""
        return dtype in FORMATS and native_performer.can_join() and native_token_training.can_join(torch.float32)

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Whether `module` is a token layer on the processor, in float32, with frozen features, of parts that the native code computes."""
        if type(module) is not TokenPerformer or not _is_joinable(module) or module.random_features.requires_grad:
            return False
        return are_float32(module.parameters())

    def forward(self, x_bchw: Tensor) -> Tensor:
        if is_recorded() or not (parts := parts_of(self)).says(_is_joinable) or not self._takes(x_bchw, parts.parameters):
            return super().forward(x_bchw)
        drops = self.drop, self.mlp.inner_drop, self.mlp.drop
        dropped = tuple(Dropped.by(drop) for drop in drops)
        norm: Any = self.norm2
        linears = self.proj, self.mlp.fc1, self.mlp.fc2
        with torch.autocast("cpu", enabled=False):
            split = self.norm1.weight, self.norm1.bias, self.kqv.weight, self.kqv.bias, self.kernel, self.stride, self.norm1.eps
            response, scales, constant = split_response(x_bchw.float(), *split)
            given = response.permute(0, 2, 3, 1).flatten(1, 2), scales.flatten(1), constant, self.random_features
            weights = *(layer.weight for layer in linears), norm.weight, norm.bias, *(layer.bias for layer in linears)
            y: Tensor = _Joined.apply(*given, norm.eps, dropped, *weights)
        return y

    def _takes(self, x: Tensor, parameters: list[nn.Parameter]) -> bool:
        if x.dim() != 4 or x.shape[1] * self.kernel**2 != self.kqv.weight.shape[1]:
            return False
        if self.random_features.requires_grad or (not self.training and records_gradients(x, parameters)):
            return False
        return is_for_chains(x, parameters) and are_float32(parameters) and self.can_join(torch.float32)


def _is_joinable(layer: Any) -> bool:
    """Whether a layer's parts are what the native code computes, and all in training or all in evaluation."""
    return are_performer_layers(layer) and has_weights(layer.norm2) and is_in_one_mode(layer)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients to what `_Joined` is given."""
    response, scales, constant, columns, gathered, attended, s, hidden, *others = ctx.saved_tensors
    proj, fc1, fc2, factors, gain, shift, fc1_bias = others
    attention, mlp = Branch(None, factors, ctx.dropped[0]), Branch(None, factors, ctx.dropped[2])
    half = Half(proj, fc1, fc2, attention, Norm(gain, shift, ctx.eps), fc1_bias, ctx.dropped[1], mlp)
    to = gradients(gradient, s, hidden, attended, half, ctx.needs_input_grad[6:9])
    to_split = native_performer.perform_gradients(response, scales, constant, columns, gathered, to.attended, to.tokens)
    return *to_split, None, None, None, to.proj, to.fc1, to.fc2, to.gain, to.shift, to.proj_bias, to.fc1_bias, to.fc2_bias


class _Joined(torch.autograd.Function):
    """response (B, T, 3 * E), scales (B, T), constant (3 * E,), features (M, E) -> (B, T, E).

    `dropped`: behind the projection, behind GELU, at the end; the weights of the projection and the MLP's linears, gain and shift of the
    norm between them, and their biases.
    """

    @staticmethod
    def forward(
        ctx: Any,
        response: Tensor,
        scales: Tensor,
        constant: Tensor,
        features: Tensor,
        eps: float,
        dropped: tuple[Dropped, Dropped, Dropped],
        proj: Tensor,
        fc1: Tensor,
        fc2: Tensor,
        *small: Tensor,
    ) -> Tensor:
        response, scales, columns = response.contiguous(), scales.contiguous(), features.t().contiguous()
        gain, shift, proj_bias, fc1_bias, fc2_bias = map(filled, small)
        gathered = native_performer.room_to_gather(len(response), columns)
        attended, v = native_performer.perform(response, scales, constant, columns, gathered)
        fc1_bias = fc1_bias.clone()  # as in a block
        factors = torch.ones(len(response), dtype=torch.float32, device="cpu")
        attention, mlp = Branch(proj_bias, factors, dropped[0]), Branch(fc2_bias, factors, dropped[2])
        s, hidden, y = run(v, attended, Half(proj, fc1, fc2, attention, Norm(gain, shift, eps), fc1_bias, dropped[1], mlp))
        ctx.eps, ctx.dropped = eps, dropped
        kept = response, scales, constant, columns, gathered, attended, s, hidden
        ctx.save_for_backward(*kept, proj, fc1, fc2, factors, gain, shift, fc1_bias)
        return y

    backward = staticmethod(way_back(_backward))
