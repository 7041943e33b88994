"""FViT's blocks in training on processors: native chains and, in float32, matrix products, see `native/{training,feed_forward}.py`."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from foveate.layers.feedforward import MultiPathFeedForward
from foveate.layers.gabor import LearnableGaborFilter
from foveate.layers.products import linear_product, product, product_over_rows
from foveate.layers.recomputing import compute_dtype, is_plain
from foveate.layers.watching import is_recorded
from foveate.models.fvit import BionicFocalVisionBlock
from foveate.speed.joined.blocks import HIDDEN_NUMBERS
from foveate.speed.joined.joinable import (
    InTraining,
    are_chains,
    are_for_chains,
    is_for_chains,
    is_in_one_mode,
    readable,
    records_gradients,
    way_back,
)
from foveate.speed.joined.parts import parts_of
from foveate.speed.native import feed_forward as native_feed_forward
from foveate.speed.native import gabor as native_gabor
from foveate.speed.native import training as native
from foveate.speed.native.feed_forward import Branch

GABOR = 8
"""Parameters of a Gabor filter."""

MIXING = 8
"""Weights of `training.mix`."""


class JoinedTrainingBlock(InTraining, BionicFocalVisionBlock):
    """The block's equation with everything between its matrix products joined, with gradients: (B, H, W, C) -> (B, H, W, C).

    In float32, where whole pictures keep all threads busy, the products are native too (`native/feed_forward.py`). Numbers and gradients
    are those of the block up to rounding, but the masks of dropout, which are never in memory, come from another generator, seeded from
    PyTorch's. Of the hidden map one number is kept for the backward pass. As in the layers' own training, gradients cannot be
    differentiated once more: a block in evaluation goes through its layers wherever gradients are recorded. So does what the chains are not
    made for, as in `JoinedBlock`.
    """

    LAYERS = BionicFocalVisionBlock
    KIND = "blocks joined: native chains and products, forward and backward"

    @staticmethod
    def can_join(dtype: torch.dtype) -> bool:
        """Whether the native code could be compiled here for this number format; the first call does it."""
        return native.can_join(dtype) and (dtype != torch.float32 or native_feed_forward.can_train())

    mixer: LearnableGaborFilter
    ffn: MultiPathFeedForward

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Whether `module` is a block on the processor of the layers that the chains compute."""
        return type(module) is BionicFocalVisionBlock and _is_joinable(module) and are_for_chains(module.parameters())

    def forward(self, x: Tensor) -> Tensor:
        if is_recorded() or not (parts := parts_of(self)).says(_is_joinable) or not self._takes(x, parts.parameters):
            return super().forward(x)
        ffn, dtype = self.ffn, compute_dtype(self.ffn.fc1.weight)
        ones = torch.ones(len(x), 1, 1, 1, dtype=torch.float32, device="cpu")
        factors = self.drop_path1(ones), self.drop_path2(ones)
        dropped = native.Dropped.by(ffn.drop), native.Dropped.by(ffn.drop)
        products = ffn.fc1.weight.to(dtype), ffn.fc2.weight.to(dtype)
        weights = ffn.fc2.bias, *self._gabor_parameters(), *self._mixing_weights(), *self._filtering_weights()
        small = (weight.float() for weight in weights)
        with torch.autocast("cpu", enabled=False):
            y: Tensor = _Joined.apply(x.to(dtype), self._mixing(), ffn.num_paths, dropped, factors, *products, *small)
        return y

    def _mixing(self) -> native.Mixing:
        eps = self.norm1.eps, self.norm2.eps
        return native.Mixing(self.mixer.kernel_size, self.mixer.activation, self.token_order == "released", eps)

    def _gabor_parameters(self) -> tuple[Tensor, ...]:
        """In the order of `native/gabor.py`."""
        of = self.mixer
        return of.frequency, of.orientation, of.phase, of.aspect_ratio, of.sharpness, of.amplitude, of.shift_x, of.shift_y

    def _mixing_weights(self) -> tuple[Tensor, ...]:
        """In the order of `training.mix`, without the filter's kernels."""
        layers: list[Any] = [self.position, self.norm1, self.norm2]
        position, norm, later = ((layer.weight, layer.bias) for layer in layers)
        return *position, *norm, self.mixer.bias, *later

    def _filtering_weights(self) -> tuple[Tensor, ...]:
        """In the order of `training.filter_groups`."""
        paths: list[Any] = list(self.ffn.paths)
        return self.ffn.fc1.bias, *(weight for path in paths for weight in (path.weight, path.bias))

    def _takes(self, x: Tensor, parameters: list[nn.Parameter]) -> bool:
        if x.dim() != 4 or x.shape[-1] != len(self.position.weight) or (not self.training and records_gradients(x, parameters)):
            return False
        return is_for_chains(x, parameters) and self.can_join(compute_dtype(self.ffn.fc1.weight))


def _is_joinable(block: Any) -> bool:
    """Whether a block's layers are what the chains compute, and all in training or all in evaluation."""
    norm = block.norm2
    if not are_chains(block, LearnableGaborFilter) or not is_plain(norm) or norm.bias is None:
        return False
    if not norm.weight.shape == norm.bias.shape == block.norm1.weight.shape or not _has_kernels(block.mixer):
        return False
    return is_in_one_mode(block)


def _has_kernels(mixer: LearnableGaborFilter) -> bool:
    """Whether a filter's parameters have one length, and its kernels a side, that native code makes kernels of."""
    lengths = {parameter.shape for parameter in mixer.parameters()}
    return len(lengths) == 1 and lengths <= {(1,), (mixer.channels,)} and mixer.kernel_size > 0 and mixer.kernel_size % 2 == 1


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients to what `_Joined` is given."""
    x, normal, hidden, rows, columns, mixed, joined, *small = ctx.saved_tensors
    gabor, mixing, filtering = small[:GABOR], small[GABOR : GABOR + MIXING], small[GABOR + MIXING :]
    wanted = ctx.needs_input_grad
    to_filtering, to_later_bias = [torch.zeros_like(weight) for weight in filtering], gradient.new_zeros(gradient.shape[-1]).float()
    to_rows, to_columns = (torch.empty_like(weight, dtype=torch.float32) for weight in (rows, columns))
    to_products = to_rows if wanted[5] else None, to_columns if wanted[6] else None
    branch = Branch(rows, columns, ctx.groups, filtering, ctx.dropped, joined)
    lead_back = native_feed_forward.lead_back if _by_pictures(branch, x) else _lead_back
    to_normal = lead_back(gradient, normal, hidden, branch, to_products, to_filtering, to_later_bias)
    to_x, to_mixing = native.mix_gradients(x, gradient, to_normal, ctx.form, mixed, mixing)
    *to_before, to_kernels, to_bias, to_gain, to_shift = to_mixing
    if len(gabor[0]) < len(to_bias):
        to_kernels, to_bias = to_kernels.sum(0, keepdim=True), to_bias.sum(0, keepdim=True)
    to_gabor = native_gabor.gradients(gabor, to_kernels[:, 0])
    to_weights = (to if to is None else to.to(rows.dtype) for to in to_products)
    to_small = *to_gabor, *to_before, to_bias, to_gain, to_shift, *to_filtering
    return to_x, None, None, None, None, *to_weights, to_later_bias, *to_small


class _Joined(torch.autograd.Function):
    """x (B, H, W, C) -> (B, H, W, C).

    `dropped`, of the hidden map and of what is added at the end; `factors` of both branches, one for each picture; weights of the first and
    the second product; `small`: the parameters of `native/gabor.py`, of one filter for all channels or one for each, the weights of
    `training.mix` but for the kernels that these make, then those of `training.filter_groups`. Kept for the backward pass: x, what the
    first product reads, and what enters the filters of the feed-forward.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        form: native.Mixing,
        groups: int,
        dropped: tuple[native.Dropped, native.Dropped],
        factors: tuple[Tensor, Tensor],
        rows: Tensor,
        columns: Tensor,
        later_bias: Tensor,
        *small: Tensor,
    ) -> Tensor:
        x, small = x.contiguous(), tuple(map(readable, small))
        rows, columns = readable(rows), readable(columns)
        width, gabor, (*before, bias, gain, shift) = x.shape[-1], small[:GABOR], small[GABOR : GABOR + MIXING - 1]
        kernels = native_gabor.kernels(gabor, form.side)[:, None]
        mixing = *before, *(weight.expand(width, *weight.shape[1:]).contiguous() for weight in (kernels, bias)), gain, shift
        r, normal = native.mix(x, form, factors[0], mixing)
        branch = Branch(rows, columns, groups, small[GABOR + MIXING - 1 :], dropped, factors[1])
        y, hidden = _feed_forward(normal, r, later_bias.contiguous(), branch)
        ctx.form, ctx.groups, ctx.dropped = form, groups, dropped
        ctx.save_for_backward(x, normal, hidden, rows, columns, *factors, *gabor, *mixing, *branch.weights)
        return y

    backward = staticmethod(way_back(_backward))


def _by_pictures(branch: Branch, x: Tensor) -> bool:
    """Whether whole pictures go through the feed-forward."""
    of_numbers = branch.fc1.dtype == torch.float32
    return of_numbers and native_feed_forward.fits(branch.fc1, branch.fc2) and native_feed_forward.are_enough(len(x))


def _feed_forward(normal: Tensor, r: Tensor, bias: Tensor, branch: Branch) -> tuple[Tensor, Tensor]:
    """`feed_forward.run`, or the same around products of PyTorch's."""
    if _by_pictures(branch, r):
        return native_feed_forward.run(normal, r, bias, branch)
    hidden, y = linear_product(normal, branch.fc1), torch.empty_like(r)
    for piece in _pieces(hidden):
        within = _within(branch.dropped[0], piece, hidden)
        leaving = native.filter_groups(hidden[piece], branch.groups, within, branch.weights)
        y[piece] = linear_product(leaving, branch.fc2)
    native.add_residual(r, y, bias, branch.dropped[1], branch.factors)
    return y, hidden


def _lead_back(
    gradient: Tensor,
    normal: Tensor,
    entering: Tensor,
    branch: Branch,
    to_products: tuple[Tensor | None, Tensor | None],
    to_weights: Sequence[Tensor],
    to_bias: Tensor,
) -> Tensor:
    """`feed_forward.lead_back` around products of PyTorch's, some pictures at a time."""
    to_normal, (to_rows, to_columns) = torch.empty_like(normal), to_products
    outer, to_end = native.residual_gradients(gradient, branch.dropped[1], branch.factors)
    to_bias += to_end
    for piece in _pieces(entering):
        inner = product(outer[piece].flatten(0, 2), branch.fc2).view_as(entering[piece])
        within = _within(branch.dropped[0], piece, entering)
        leaving = native.filter_gradients(entering[piece], inner, branch.groups, within, branch.weights, to_weights)
        _add_product(to_columns, outer[piece], leaving, piece.start > 0)
        _add_product(to_rows, inner, normal[piece], piece.start > 0)
        to_normal[piece] = product(inner.flatten(0, 2), branch.fc1).view_as(normal[piece])
    return to_normal


def _add_product(total: Tensor | None, outer: Tensor, inner: Tensor, grows: bool) -> None:
    """`total = outer^T inner` over all pixels, or `total += ...` where it grows: a sum over pieces, float32 whatever these are."""
    if total is None:
        return
    found = product_over_rows(outer.flatten(0, 2), inner.flatten(0, 2))
    if grows:
        total += found
    else:
        total.copy_(found)


def _pieces(hidden: Tensor) -> list[slice]:
    """The pictures in pieces of `HIDDEN_NUMBERS` of the hidden map, or of single pictures."""
    pictures = max(1, HIDDEN_NUMBERS // hidden[0].numel())
    return [slice(start, start + pictures) for start in range(0, len(hidden), pictures)]


def _within(dropped: native.Dropped, piece: slice, hidden: Tensor) -> native.Dropped:
    """The dropout of some of the pictures."""
    return dropped._replace(start=piece.start * hidden[0].numel())
