"""Matrix products in float32 by that one of the processor's two libraries which is the faster.

PyTorch gives them to MKL, which leaves AVX-512 aside on processors of another maker than its own: 225 GFLOP/s on two cores of AMD's Zen 5,
whose arithmetic allows 540. There oneDNN, which makes PyTorch's convolutions, reaches 480 to 520. On other processors, in other number
formats and for whoever watches, PyTorch's own products are called. Numbers are the same up to rounding.
"""

import platform
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.layers.watching import is_recorded, is_watched


def linear_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x weight^T + bias`, (..., D), (E, D), (E,) -> (..., E), with gradients that can be differentiated again."""
    tensors = (x, weight) if bias is None else (x, weight, bias)
    fits = weight.dim() == 2 and x.shape[-1:] == weight.shape[1:] and (bias is None or bias.shape == weight.shape[:1])
    if not fits or not _takes(*tensors):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        y: Tensor = _Linear.apply(x, weight, bias)
        return y
    return _by_onednn(x, weight, bias)


def product(a: Tensor, b: Tensor) -> Tensor:
    """`a b`, (T, D), (D, E) -> (T, E)."""
    return linear_product(a, b.t())


def product_over_rows(a: Tensor, b: Tensor) -> Tensor:
    """`a^T b`, (T, D), (T, E) -> (D, E), as gradients to weights are; the wider one is the one that oneDNN packs."""
    return product(b.t(), a).t() if b.shape[1] <= a.shape[1] and _takes(a, b) else product(a.t(), b)


def plus_product(x: Tensor, tokens: Tensor, weight: Tensor) -> Tensor:
    """x + linear(tokens, weight), in the memory of x where no gradients are recorded: (T, E), (T, D), (E, D) -> (T, E)."""
    if torch.is_grad_enabled() or x.dtype != tokens.dtype:
        return torch.addmm(x, tokens, weight.t())
    return add_product(x, tokens, weight.to(x.dtype))


def add_product(x: Tensor, tokens: Tensor, weight: Tensor) -> Tensor:
    """The same in the memory of x, for whoever knows that nobody records gradients."""
    if not _takes(x, tokens, weight) or not x.is_contiguous() or x.shape != (len(tokens), len(weight)):
        return x.addmm_(tokens, weight.t())
    maps, kernel = (rows[None, :, None].permute(0, 3, 1, 2) for rows in (x, tokens)), weight.contiguous()[:, :, None, None]
    torch.ops.mkldnn._convolution_pointwise_.binary(*maps, kernel, None, [0, 0], [1, 1], [1, 1], 1, "add", 1.0, None, [], None)
    return x


def _takes(*tensors: Tensor) -> bool:
    """Whether tensors can go to oneDNN, it is the faster one, and nobody misses the product that they would have seen."""
    if is_recorded() or not has_slow_products() or is_watched() or torch.is_autocast_enabled("cpu"):
        return False
    if not torch.backends.mkldnn.is_available() or not torch._C._get_mkldnn_enabled():
        return False
    return all(_is_plain_float32(tensor) and tensor.dim() >= 1 for tensor in tensors)


def _is_plain_float32(tensor: Tensor) -> bool:
    plain = type(tensor) in (Tensor, nn.Parameter) and tensor.device.type == "cpu" and tensor.layout == torch.strided
    return plain and tensor.dtype == torch.float32 and tensor.numel() > 0 and not tensor.is_neg()


@lru_cache
def has_slow_products() -> bool:
    """Whether the processor has AVX-512 and PyTorch's library for products in float32, MKL, leaves it aside."""
    avx512 = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return avx512 and torch.backends.mkl.is_available() and "AuthenticAMD" in _processor()


def _processor() -> str:
    """What the system says of the processor, its maker among it."""
    told = Path("/proc/cpuinfo")
    return told.read_text(errors="replace") if told.exists() else platform.processor()


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    dense = weight if weight.is_contiguous() or weight.t().is_contiguous() else weight.contiguous()  # with gaps it is tens of times slower
    row = None if bias is None else bias.contiguous()  # its strides would not be read
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, dense, row, "none", [], "")
    return y


class _Linear(torch.autograd.Function):
    """x (..., D), weight (E, D), bias (E,) -> (..., E)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        to_x, to_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if to_weight else None, weight if to_x else None)
        return _by_onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.needs_input_grad
        outer = gradient.reshape(-1, gradient.shape[-1])
        return (
            product(outer, weight).view(*gradient.shape[:-1], -1) if to_x else None,
            product_over_rows(outer, x.reshape(-1, x.shape[-1])) if to_weight else None,
            outer.sum(dim=0) if to_bias else None,
        )
