"""The token layers of T2T-ViT (arXiv 2101.11986): what happens to the tokens between two soft splits.

Legend: B batch, C x H x W map, T tokens, D length of an overlapping patch, E width of a token (64), M random features (32).
Each layer takes the map, splits it softly and gives (B, T, E); its shortcut is v, since D and E differ.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.layers.dropout import Dropout
from foveate.layers.in_place import added
from foveate.layers.mlp import Mlp
from foveate.layers.recomputing import called
from foveate.layers.soft_split import split_norm_linear

DENOMINATOR_EPS = 1e-8
LARGEST_EXPONENT = 80.0
"""exp(80) is near the end of float32's range; with it the published eps rules the denominator and the output is zero."""


def orthogonal_features(features: int, width: int, generator: torch.Generator | None = None) -> Tensor:
    """Random feature vectors (M, E): orthogonal rows times sqrt(M), as published."""
    return nn.init.orthogonal_(torch.empty(features, width), generator=generator) * math.sqrt(features)


def performer_attention(q: Tensor, k: Tensor, v: Tensor, features: Tensor) -> Tensor:
    """Linear attention with positive random features (Performer, arXiv 2009.14794), stable at any magnitude.

    `phi(x) = exp(w x - |x|^2 / 2) / sqrt(M)`; `y = phi(q) (phi(k)^T v) / (phi(q) . sum phi(k) + 1e-8)`. The published code overflows
    where w x is large and divides by zero where |x| is. Here the largest exponent of each feature over the tokens is taken out of k and
    given to q, and the largest exponent of each q is taken out of numerator and denominator alike, so that the sum in the denominator is
    at least 1. The value is the published one, the 1e-8 included, up to rounding.

    Args:
        q, k, v: (B, T, E), float32 or wider; features: w, (M, E).

    Returns:
        (B, T, E).
    """
    log_q = q @ features.T - q.square().sum(-1, keepdim=True) / 2
    log_k = k @ features.T - k.square().sum(-1, keepdim=True) / 2
    largest_k = log_k.detach().amax(dim=1, keepdim=True)
    log_q = log_q + largest_k
    largest_q = log_q.detach().amax(dim=-1, keepdim=True)
    phi_q = torch.exp(log_q - largest_q)
    phi_k = torch.exp(log_k - largest_k)
    eps = DENOMINATOR_EPS * features.shape[0] * torch.exp((-largest_q).clamp(max=LARGEST_EXPONENT))
    weights = phi_q / (phi_q @ phi_k.sum(dim=1)[..., None] + eps)
    return weights @ (phi_k.transpose(1, 2) @ v)


class TokenPerformer(nn.Module):
    """Soft split, LayerNorm, performer attention with one head, MLP: (B, C, H, W) -> (B, T, E), always in float32 or wider.

    Half precision would round the 1e-8 to zero and overflow the exponentials: under autocast this layer leaves it.

    Args:
        patch: D = C * k * k, the length of an overlapping patch.
        width: E.
        kernel, stride: of the soft split.
        features: M, the frozen orthogonal random features, stored with the weights.
        drop: dropout after the projection and after the MLP; 0.1 as published.
    """

    def __init__(self, patch: int, width: int, kernel: int, stride: int, *, features: int = 32, drop: float = 0.1) -> None:
        super().__init__()
        self.width, self.kernel, self.stride = width, kernel, stride
        self.random_features = nn.Parameter(orthogonal_features(features, width), requires_grad=False)
        self.norm1 = nn.LayerNorm(patch)
        self.kqv = nn.Linear(patch, 3 * width)
        self.proj = nn.Linear(width, width)
        self.drop = Dropout(drop)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, width, drop=drop)

    def forward(self, x_bchw: Tensor) -> Tensor:
        with torch.autocast(x_bchw.device.type, enabled=False):
            x_bchw = x_bchw.to(self.kqv.weight.dtype)
            kqv = split_norm_linear(
                x_bchw, self.norm1.weight, self.norm1.bias, self.kqv.weight, self.kqv.bias, self.kernel, self.stride, self.norm1.eps
            )
            k, q, v = kqv.chunk(3, dim=-1)
            x = v + self.drop(called(self.proj, performer_attention(q, k, v, self.random_features)))
            return added(x, self.mlp(x, self.norm2))


class TokenTransformer(nn.Module):
    """Soft split, LayerNorm, softmax attention with one head, MLP: (B, C, H, W) -> (B, T, E).

    The softmax is scaled by D^-0.5 of the layer's input width, not of the head's: a quirk of the published models that their weights need.

    Args:
        patch: D = C * k * k; width: E; kernel, stride: of the soft split.
    """

    def __init__(self, patch: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.width, self.kernel, self.stride = width, kernel, stride
        self.scale = patch**-0.5
        self.norm1 = nn.LayerNorm(patch)
        self.qkv = nn.Linear(patch, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, width)

    def forward(self, x_bchw: Tensor) -> Tensor:
        with torch.autocast(x_bchw.device.type, enabled=False):
            x_bchw = x_bchw.to(self.qkv.weight.dtype)
            qkv = split_norm_linear(
                x_bchw, self.norm1.weight, self.norm1.bias, self.qkv.weight, None, self.kernel, self.stride, self.norm1.eps
            )
        q, k, v = qkv.chunk(3, dim=-1)
        attended = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], scale=self.scale)[:, 0]
        x = v + called(self.proj, attended)
        return added(x, self.mlp(x, self.norm2))
