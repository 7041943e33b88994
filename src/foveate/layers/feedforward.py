"""Multi-path feed-forward (MPFFN) of FViT, after Res2Net (arXiv 1904.01169)."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from foveate.layers.depthwise import depthwise, depthwise_backward
from foveate.layers.dropout import Dropout
from foveate.layers.in_place import added, gelu
from foveate.layers.one_call import convolved, plus_pointwise, takes
from foveate.layers.products import add_product, linear_product, plus_product, product, product_over_rows
from foveate.layers.recomputing import compute_dtype, is_plain, is_untouched, norm_backward, norm_forward, recomputes

FEW_PIXELS = 2000
"""Below the 3,136 of sixteen 14 x 14 maps, where both forms take as long on two cores; single pictures gain (docs/performance.md)."""


class MultiPathFeedForward(nn.Module):
    """Layer norm, linear to the hidden width, split into paths that filter one after another, linear back: (B, H, W, C) -> (B, H, W, C).

    `y1 = GELU(dw1(x1))`, `yi = GELU(dwi(xi + y(i-1)))`, every dw a 3x3 depthwise convolution with bias; no activation directly after the
    first linear. Two paths are the released DPFFN; the paper draws a stack of three convolutions, which may be three paths, or four of
    which the first passes untouched.

    The hidden map is never whole in memory: each path has its own rows of the first linear, its own columns of the second, and their
    products are added up. The numbers are those of the equation, up to the order of the additions. The layer norm belongs to the block
    and comes along so that training need not keep its output. Linear layers with hooks, or others in their place, are called whole.

    Args:
        channels: C.
        hidden: the hidden width, divisible by `paths`.
        paths: number of groups of the hidden channels, at least 1.
        untouched: how many leading groups pass as they are (Res2Net keeps one).
        drop: dropout after each linear.

    Raises:
        ValueError: where the hidden width cannot be split evenly.
    """

    def __init__(self, channels: int, hidden: int, *, paths: int = 2, untouched: int = 0, drop: float = 0.0) -> None:
        super().__init__()
        if hidden % paths or not 0 <= untouched < paths:
            raise ValueError(
                f"found {paths} paths, {untouched} untouched, for {hidden} hidden channels; expected equal groups and one convolution"
            )
        width = hidden // paths
        self.num_paths = paths
        self.fc1 = nn.Linear(channels, hidden)
        self.paths = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, groups=width) for _ in range(paths - untouched))
        self.fc2 = nn.Linear(hidden, channels)
        self.drop = Dropout(drop)

    def forward(self, x_bhwc: Tensor, norm: nn.Module) -> Tensor:
        if recomputes(norm, self.fc1, *self.paths, self.fc2):
            return self.drop(self._filtered_in_training(x_bhwc, norm))
        return self.drop(self._filtered(norm(x_bhwc)))

    def adds_to(self, x_bhwc: Tensor) -> bool:
        """Whether `added_to` can be called instead of this module: in evaluation on processors, where nobody watches."""
        if self.training or not is_untouched(self, MultiPathFeedForward) or not self._is_by_paths():
            return False
        return self._is_in_one_call(x_bhwc) and x_bhwc.dtype == compute_dtype(self.fc1.weight)

    def added_to(self, x_bhwc: Tensor, norm: nn.Module) -> Tensor:
        """`x + self(x, norm)` in the memory of x: the second linear's products are added to the map itself."""
        normal = norm(x_bhwc)
        if normal.data_ptr() == x_bhwc.data_ptr():  # something stands in the norm's place, and later paths will read the map again
            return x_bhwc + self._by_paths(normal)
        return self._by_paths(normal, x_bhwc)

    def _filtered(self, x_bhwc: Tensor) -> Tensor:
        """The equation up to the last dropout, path by path where the linear layers need not be called whole."""
        if self._is_by_paths():
            return self._by_paths(x_bhwc)
        entering = partial(self._entering_whole, self.drop(self.fc1(x_bhwc)))
        whole: Tensor = self.fc2(torch.cat(list(self._through_paths(entering)), dim=-1))
        return whole

    def _by_paths(self, x_bhwc: Tensor, onto: Tensor | None = None) -> Tensor:
        """Each path with its own rows and columns of the linear layers; `onto`: a map whose memory takes the sum with it."""
        columns = self.fc2.weight.chunk(self.num_paths, dim=1)
        total = None
        for hidden, column in zip(self._through_paths(partial(self._entering, x_bhwc)), columns, strict=True):
            if total is not None:
                total = plus_product(total, hidden.flatten(0, 2), column)
            elif onto is not None:
                total = plus_pointwise(onto, hidden, column, self.fc2.bias).flatten(0, 2)
            else:
                total = _pointwise(hidden, column, self.fc2.bias).flatten(0, 2)
        assert total is not None
        return total.view_as(x_bhwc)

    def _entering_whole(self, hidden_bhwc: Tensor, index: int, previous: Tensor | None) -> Tensor:
        """What enters a path: its group of the hidden map, and what left the path before."""
        group = hidden_bhwc.chunk(self.num_paths, dim=-1)[index]
        return group if previous is None else added(group, previous)

    def _entering(self, x_bhwc: Tensor, index: int, previous: Tensor | None) -> Tensor:
        """The same by its rows of the first linear alone; may take the memory of what left the path before."""
        weight, bias = (tensor.chunk(self.num_paths)[index] for tensor in (self.fc1.weight, self.fc1.bias))
        if previous is not None and self._is_in_one_call(x_bhwc):
            return plus_pointwise(previous, x_bhwc, weight, bias)
        hidden = self.drop(_pointwise(x_bhwc, weight, bias))
        return hidden if previous is None else added(hidden, previous)

    def _through_paths(self, entering: Callable[[int, Tensor | None], Tensor]) -> Iterator[Tensor]:
        """What leaves each path, (B, H, W, hidden / paths), one at a time.

        `entering` makes what enters of the path's index and of what left the path before, None where nothing did.
        """
        untouched = self.num_paths - len(self.paths)
        previous = None
        for index in range(self.num_paths):
            leaving = entering(index, previous)
            if index >= untouched:
                path: Any = self.paths[index - untouched]
                leaving = previous = convolved(path, leaving.permute(0, 3, 1, 2), "gelu").permute(0, 2, 3, 1)
            yield leaving

    def _is_by_paths(self) -> bool:
        """Whether the linear layers need not be called whole."""
        return is_plain(self.fc1) and is_plain(self.fc2)

    def _is_in_one_call(self, x_bhwc: Tensor) -> bool:
        """Whether a linear layer and a sum behind it are one call: no dropout between them, pixels enough for a convolution."""
        drops = self.drop.levels > 0 or not is_untouched(self.drop, Dropout)
        return not drops and _is_convolution(x_bhwc) and takes(x_bhwc, self.fc1.weight)

    def _filtered_in_training(self, x_bhwc: Tensor, norm: nn.Module) -> Tensor:
        """`_filtered` of the layer norm, with gradients of its own, in autocast's number format where that is on."""
        dtype = compute_dtype(self.fc1.weight)
        hidden = torch.Size((*x_bhwc.shape[:-1], self.fc1.out_features // self.num_paths))
        masks = [self.drop.mask(hidden, x_bhwc.device) for _ in range(self.num_paths)]
        first = [tensor if self.drop.scale == 1 else tensor * self.drop.scale for tensor in (self.fc1.weight, self.fc1.bias)]
        linears = (*first, self.fc2.weight, self.fc2.bias)
        kernels = (tensor for path in self.paths for tensor in (path.weight, path.bias))
        weights = (tensor.to(dtype) for tensor in (*linears, *kernels))
        with torch.autocast(x_bhwc.device.type, enabled=False):
            filtered: Tensor = _FilteredPaths.apply(x_bhwc, norm.weight, norm.bias, norm.eps, masks, *weights)
        return filtered


def _pointwise(x_bhwc: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer; without gradients as a 1x1 convolution, which is faster on narrow maps, while its backward pass is slower.

    A convolution first brings its weights into another order, which does not pay for a few pixels.
    """
    if not _is_convolution(x_bhwc):
        return linear_product(x_bhwc, weight, bias)
    return F.conv2d(x_bhwc.permute(0, 3, 1, 2), weight[:, :, None, None], bias).permute(0, 2, 3, 1)


def _is_convolution(x_bhwc: Tensor) -> bool:
    """Whether `_pointwise` is one."""
    return not torch.is_grad_enabled() and (torch.compiler.is_compiling() or x_bhwc.shape[:-1].numel() >= FEW_PIXELS)


class _FilteredPaths(torch.autograd.Function):
    """Layer norm, both linears and the paths between them: (B, H, W, C) -> (B, H, W, C).

    For the backward pass one number is kept per hidden one (before its convolution) and a byte of dropout, where PyTorch keeps three and a
    byte: layer norm, convolution and GELU are computed again. Sums go into the memory of what is summed. `weights`: of the first linear, of
    the second, and of each path's convolution, each with its bias; the first linear's already carry the scale of the dropout.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gain: Tensor, shift: Tensor | None, eps: float, masks: list[Tensor | None], *weights: Tensor
    ) -> Tensor:
        w1, b1, w2, b2, *kernels = weights
        normal, mean, rstd = norm_forward(x, gain, shift, eps, w1.dtype)
        paths, untouched = len(masks), len(masks) - len(kernels) // 2
        rows = zip(w1.chunk(paths), b1.chunk(paths), w2.chunk(paths, dim=1), masks, strict=True)
        total, previous, kept = None, None, []
        for index, (weight, bias, column, mask) in enumerate(rows):
            leaving = entering = linear_product(normal, weight, bias)
            if mask is not None:
                entering.mul_(mask)
            if index >= untouched:
                if previous is not None:
                    entering.add_(previous)
                response = depthwise(entering, *kernels[2 * (index - untouched) :][:2])
                leaving = previous = gelu(response)
            kept += [entering, mask]
            tokens = leaving.flatten(0, 2)
            total = linear_product(tokens, column, b2) if total is None else add_product(total, tokens, column)
        assert total is not None
        ctx.paths, ctx.untouched, ctx.eps = paths, untouched, eps
        ctx.save_for_backward(x, mean, rstd, gain, shift, w1, w2, *kernels, *kept)
        return total.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, mean, rstd, gain, shift, w1, w2, *rest = ctx.saved_tensors
        filters = ctx.paths - ctx.untouched
        kernels, kept = rest[: 2 * filters], rest[2 * filters :]
        normal = norm_forward(x, gain, shift, ctx.eps, w1.dtype)[0]
        tokens, outer = normal.flatten(0, 2), gradient.flatten(0, 2)
        to_x, to_w1, to_w2 = torch.zeros_like(tokens), torch.empty_like(w1), torch.empty_like(w2)
        to_b1 = w1.new_empty(len(w1))
        to_kernels: list[Tensor] = []
        to_previous = None
        for index in reversed(range(ctx.paths)):
            entering, mask = kept[2 * index : 2 * index + 2]
            rows = slice(index * len(w1) // ctx.paths, (index + 1) * len(w1) // ctx.paths)
            inner = product(outer, w2[:, rows]).view_as(entering)
            leaving = entering
            if index >= ctx.untouched:
                taps, offset = kernels[2 * (index - ctx.untouched) :][:2]
                response = depthwise(entering, taps, offset)
                leaving = F.gelu(response)
                to_response = torch.ops.aten.gelu_backward(inner if to_previous is None else inner.add_(to_previous), response)
                inner, *to_kernel = depthwise_backward(to_response, entering, taps)
                to_kernels = to_kernel + to_kernels
                to_previous = inner
            to_w2[:, rows] = product_over_rows(outer, leaving.flatten(0, 2))
            to_hidden = (inner if mask is None else inner * mask).flatten(0, 2)
            to_w1[rows], to_b1[rows] = product_over_rows(to_hidden, tokens), to_hidden.sum(dim=0)
            add_product(to_x, to_hidden, w1[rows].t())
        to_norm = norm_backward(to_x.view_as(x), x, mean, rstd, gain, shift, ctx.needs_input_grad[:3])
        return *to_norm, None, None, to_w1, to_b1, to_w2, outer.sum(dim=0), *to_kernels
