"""The backbone study of T2T-ViT (arXiv 2101.11986, section 3.2): squeeze-excitation, dense and ghost backbones behind the same token stage.

Wide and ResNeXt (more heads) are rows of the table in `t2t_vit`. Legend as there. In short trainings on few pictures none of the six is
told from the others (docs/results.md: 28.3 to 33.9%, deviations of 0.2 to 2.7 over 3 trainings).
"""

from collections.abc import Sequence
from typing import Any

import torch
from timm.models import generate_default_cfgs
from torch import Tensor, nn
from torch.nn import functional as F

from foveate.models.t2t_vit import FIRST_LAYER, Attention, Block, T2TViT, default_config, register

DENSE_START, DENSE_GROWTH, DENSE_GROUPS = 128, 64, (3, 6, 6, 4)


class SqueezeExcitation(nn.Module):
    """Each channel scaled by a gate that sees the mean over all tokens, (B, T, D) -> (B, T, D)."""

    def __init__(self, width: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, width // reduction, bias=False)
        self.fc2 = nn.Linear(width // reduction, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc2(self.fc1(x.mean(dim=1, keepdim=True)).relu()).sigmoid()


class SEAttention(Attention):
    """Attention, then squeeze-excitation right after the projection."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__(width, num_heads)
        self.se = SqueezeExcitation(width)

    def forward(self, x: Tensor, norm: nn.Module) -> Tensor:
        return self.se(super().forward(x, norm))


class SET2TViT(T2TViT):
    """T2T-ViT with squeeze-excitation in every attention."""

    def make_attention(self, width: int) -> nn.Module:
        return SEAttention(width, self.num_heads)


class DenseBlock(Block):
    """An ordinary block whose result, brought to the growth width, stands behind the block's input: (B, T, D) -> (B, T, D + growth)."""

    def __init__(self, width: int, growth: int, attention: nn.Module, mlp: nn.Module, drop_path: float) -> None:
        super().__init__(width, attention, mlp, drop_path)
        self.dense_linear = nn.Linear(width, growth)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.dense_linear(super().forward(x))), dim=-1)


class Transition(nn.Module):
    """Linear to half the width, GELU: (B, T, D) -> (B, T, D / 2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width // 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.linear(x))


class DenseT2TViT(T2TViT):
    """T2T-ViT with a DenseNet-style backbone: groups of growing blocks with transitions between them, each an entry of `blocks`.

    The width starts at 128 and grows by 64 per block; drop-path is one value per group.

    Args:
        groups: blocks in each group. The other arguments are those of `T2TViT`; `depth` must be their sum.
    """

    def __init__(self, *args: Any, groups: Sequence[int] = DENSE_GROUPS, **kwargs: Any) -> None:
        if kwargs.setdefault("depth", sum(groups)) != sum(groups):
            raise ValueError(f"depth: found {kwargs['depth']}, expected {sum(groups)}, the sum of the groups {tuple(groups)}")
        self.groups = tuple(groups)
        super().__init__(*args, **kwargs)

    @property
    def widths(self) -> list[int]:
        width, widths = self.cls_token.shape[-1], []
        for block in self.blocks:
            width = width // 2 if isinstance(block, Transition) else width + DENSE_GROWTH
            widths.append(width)
        return widths

    def make_blocks(self, width: int, depth: int, drop_path_rate: float) -> nn.ModuleList:
        blocks: list[nn.Module] = []
        rates = torch.linspace(0, drop_path_rate, len(self.groups), device="cpu").tolist()
        for index, (count, rate) in enumerate(zip(self.groups, rates, strict=True)):
            for _ in range(count):
                blocks.append(DenseBlock(width, DENSE_GROWTH, self.make_attention(width), self.make_mlp(width), rate))
                width += DENSE_GROWTH
            if index < len(self.groups) - 1:
                blocks.append(Transition(width))
                width //= 2
        return nn.ModuleList(blocks)


class GhostAttention(nn.Module):
    """Attention over `norm(x)` whose q, k and v are each half computed and half a cheap per-channel scale of it: (B, T, D) -> (B, T, D)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        half = width // 2
        self.q, self.k, self.v = (nn.Linear(width, half, bias=False) for _ in range(3))
        self.cheap_operation_q, self.cheap_operation_k, self.cheap_operation_v = (
            nn.Conv1d(half, half, 1, groups=half, bias=False) for _ in range(3)
        )
        self.proj = nn.Linear(width, width)

    def _heads(self, x: Tensor, linear: nn.Linear, cheap: nn.Conv1d) -> Tensor:
        half = linear(x)
        return torch.cat((half, scale_channels(half, cheap)), dim=-1).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, norm: nn.Module) -> Tensor:
        x = norm(x)
        q = self._heads(x, self.q, self.cheap_operation_q)
        k = self._heads(x, self.k, self.cheap_operation_k)
        v = self._heads(x, self.v, self.cheap_operation_v)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class GhostMlp(nn.Module):
    """MLP of `norm(x)`, of ratio 3, of which one third is computed and two thirds are cheap scales of it: (B, T, D) -> (B, T, D)."""

    def __init__(self, width: int, drop: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, width)
        self.cheap_operation2 = nn.Conv1d(width, width, 1, groups=width, bias=False)
        self.cheap_operation3 = nn.Conv1d(width, width, 1, groups=width, bias=False)
        self.fc2 = nn.Linear(3 * width, width)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor, norm: nn.Module) -> Tensor:
        x1 = F.gelu(self.fc1(norm(x)))
        x2 = F.gelu(scale_channels(x1, self.cheap_operation2))
        x3 = F.gelu(scale_channels(x1, self.cheap_operation3))
        return self.drop(self.fc2(self.drop(torch.cat((x1, x2, x3), dim=-1))))


def scale_channels(x: Tensor, cheap: nn.Conv1d) -> Tensor:
    """What a depthwise 1x1 convolution does to tokens (B, T, D): each channel times its weight."""
    return x * cheap.weight.flatten()


class GhostT2TViT(T2TViT):
    """T2T-ViT with ghost features in attention and MLP; `mlp_ratio` must be 3, which the ghost MLP is."""

    def make_attention(self, width: int) -> nn.Module:
        return GhostAttention(width, self.num_heads)

    def make_mlp(self, width: int) -> nn.Module:
        if self.mlp_ratio != 3:
            raise ValueError(f"mlp_ratio: found {self.mlp_ratio}, expected 3 for the ghost backbone")
        return GhostMlp(width, self.proj_drop_rate)


# name: class, width, depth, heads, MLP ratio. Source: table 2 of the paper and the released code.
VARIANTS: dict[str, tuple[type[T2TViT], int, int, int, float]] = {
    "t2t_vit_14_se": (SET2TViT, 384, 14, 6, 3.0),
    "t2t_vit_dense": (DenseT2TViT, DENSE_START, sum(DENSE_GROUPS), 8, 2.0),
    "t2t_vit_16_ghost": (GhostT2TViT, 384, 16, 6, 3.0),
}

default_cfgs = generate_default_cfgs({name: default_config(FIRST_LAYER["performer"]) for name in VARIANTS})


for _name, (_class, _width, _depth, _heads, _ratio) in VARIANTS.items():
    register(_name, _class, {"embed_dim": _width, "depth": _depth, "num_heads": _heads, "mlp_ratio": _ratio})
