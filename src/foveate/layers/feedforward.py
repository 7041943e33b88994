"""Multi-path feed-forward (MPFFN) of FViT, after Res2Net (arXiv 1904.01169)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from foveate.layers.dropout import Dropout
from foveate.layers.in_place import added, gelu, plus_product


class MultiPathFeedForward(nn.Module):
    """Linear to the hidden width, split into paths that filter one after another, linear back: (B, H, W, C) -> (B, H, W, C).

    `y1 = GELU(dw1(x1))`, `yi = GELU(dwi(xi + y(i-1)))`, every dw a 3x3 depthwise convolution with bias; no activation directly after the
    first linear. Two paths are the released DPFFN; the paper draws a stack of three convolutions, which may be three paths, or four of
    which the first passes untouched.

    The hidden map is never whole in memory: each path has its own rows of the first linear, its own columns of the second, and their
    products are added up. The numbers are those of the equation, up to the order of the additions.

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

    def forward(self, x_bhwc: Tensor) -> Tensor:
        eager_training = self.training and torch.is_grad_enabled() and not torch.compiler.is_compiling()
        return self.drop(self._filtered_in_training(x_bhwc) if eager_training else self._filtered(x_bhwc))

    def _filtered(self, x_bhwc: Tensor) -> Tensor:
        """The equation path by path, up to the last dropout."""
        rows = zip(self.fc1.weight.chunk(self.num_paths), self.fc1.bias.chunk(self.num_paths), strict=True)
        columns = self.fc2.weight.chunk(self.num_paths, dim=1)
        untouched = self.num_paths - len(self.paths)
        total = previous = None
        for index, ((weight, bias), column) in enumerate(zip(rows, columns, strict=True)):
            hidden = self.drop(_pointwise(x_bhwc, weight, bias))
            if index >= untouched:
                entering = hidden if previous is None else added(hidden, previous)
                response = self.paths[index - untouched](entering.permute(0, 3, 1, 2))
                hidden = previous = gelu(response.permute(0, 2, 3, 1))
            if total is None:
                total = _pointwise(hidden, column, self.fc2.bias).flatten(0, 2)
            else:
                total = plus_product(total, hidden.flatten(0, 2), column)
        assert total is not None
        return total.view_as(x_bhwc)

    def _filtered_in_training(self, x_bhwc: Tensor) -> Tensor:
        """`_filtered` with gradients of its own, in autocast's number format where that is on."""
        device = x_bhwc.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x_bhwc.dtype
        hidden = torch.Size((*x_bhwc.shape[:-1], self.fc1.out_features // self.num_paths))
        masks = [self.drop.mask(hidden, x_bhwc.device) for _ in range(self.num_paths)]
        first = [tensor if self.drop.scale == 1 else tensor * self.drop.scale for tensor in (self.fc1.weight, self.fc1.bias)]
        linears = (*first, self.fc2.weight, self.fc2.bias)
        kernels = (tensor for path in self.paths for tensor in (path.weight, path.bias))
        x, *weights = (tensor.to(dtype) for tensor in (x_bhwc, *linears, *kernels))
        with torch.autocast(device, enabled=False):
            filtered: Tensor = _FilteredPaths.apply(x, masks, *weights)
        return filtered


def _pointwise(x_bhwc: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer; without gradients as a 1x1 convolution, which is faster on narrow maps, while its backward pass is slower."""
    if torch.is_grad_enabled():
        return F.linear(x_bhwc, weight, bias)
    return F.conv2d(x_bhwc.permute(0, 3, 1, 2), weight[:, :, None, None], bias).permute(0, 2, 3, 1)


class _FilteredPaths(torch.autograd.Function):
    """Both linears and the paths between them: (B, H, W, C) -> (B, H, W, C).

    For the backward pass two numbers are kept per hidden one (before and behind its convolution) and a byte of dropout, where PyTorch keeps
    three and a byte: GELU is computed again. Sums go into the memory of what is summed. `weights`: of the first linear, of the second, and
    of each path's convolution, each with its bias; the first linear's already carry the scale of the dropout.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, masks: list[Tensor | None], *weights: Tensor) -> Tensor:
        w1, b1, w2, b2, *kernels = weights
        paths, untouched = len(masks), len(masks) - len(kernels) // 2
        rows = zip(w1.chunk(paths), b1.chunk(paths), w2.chunk(paths, dim=1), masks, strict=True)
        total, previous, kept = None, None, []
        for index, (weight, bias, column, mask) in enumerate(rows):
            leaving = entering = F.linear(x, weight, bias)
            response = None
            if mask is not None:
                entering.mul_(mask)
            if index >= untouched:
                if previous is not None:
                    entering.add_(previous)
                taps, offset = kernels[2 * (index - untouched) :][:2]
                response = F.conv2d(entering.permute(0, 3, 1, 2), taps, offset, padding=1, groups=len(taps)).permute(0, 2, 3, 1)
                leaving = previous = F.gelu(response)
            kept += [entering, response, mask]
            tokens = leaving.flatten(0, 2)
            total = F.linear(tokens, column, b2) if total is None else total.addmm_(tokens, column.t())
        assert total is not None
        ctx.paths, ctx.untouched = paths, untouched
        ctx.save_for_backward(x, w1, w2, *kernels[::2], *kept)
        return total.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, w1, w2, *rest = ctx.saved_tensors
        filters = ctx.paths - ctx.untouched
        all_taps, kept = rest[:filters], rest[filters:]
        tokens, outer = x.flatten(0, 2), gradient.flatten(0, 2)
        to_x, to_w1, to_w2 = torch.zeros_like(tokens), torch.empty_like(w1), torch.empty_like(w2)
        to_b1 = w1.new_empty(len(w1))
        to_kernels: list[Tensor] = []
        to_previous = None
        for index in reversed(range(ctx.paths)):
            entering, response, mask = kept[3 * index : 3 * index + 3]
            rows = slice(index * len(w1) // ctx.paths, (index + 1) * len(w1) // ctx.paths)
            inner = (outer @ w2[:, rows]).view_as(entering)
            leaving = entering
            if response is not None:
                leaving = F.gelu(response)
                to_response = torch.ops.aten.gelu_backward(inner if to_previous is None else inner.add_(to_previous), response)
                inner, *to_kernel = _depthwise_backward(to_response, entering, all_taps[index - ctx.untouched])
                to_kernels = to_kernel + to_kernels
                to_previous = inner
            to_w2[:, rows] = outer.t() @ leaving.flatten(0, 2)
            to_hidden = (inner if mask is None else inner * mask).flatten(0, 2)
            to_w1[rows], to_b1[rows] = to_hidden.t() @ tokens, to_hidden.sum(dim=0)
            to_x.addmm_(to_hidden, w1[rows])
        return to_x.view_as(x), None, to_w1, to_b1, to_w2, outer.sum(dim=0), *to_kernels


def _depthwise_backward(gradient_bhwc: Tensor, x_bhwc: Tensor, taps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients to the map (B, H, W, C), to the taps and to the bias of a 3x3 depthwise convolution with padding 1."""
    gradient, x = gradient_bhwc.permute(0, 3, 1, 2), x_bhwc.permute(0, 3, 1, 2)
    plain = [len(taps)], [1, 1], [1, 1], [1, 1], False, [0, 0]  # bias size, stride, padding, dilation, not transposed, output padding
    to_x, to_taps, to_bias = torch.ops.aten.convolution_backward(gradient, x, taps, *plain, len(taps), [True, True, True])
    return to_x.permute(0, 2, 3, 1), to_taps, to_bias
