"""T2T-ViT: tokens-to-token vision transformer.

Paper: "Tokens-to-Token ViT: Training Vision Transformers from Scratch on ImageNet", arXiv 2101.11986. Authors' code:
yitu-opensource/T2T-ViT. Written from the paper and from a description of the released code's behaviour; parity with its outputs is
tested.

Legend: B batch, C channels, H x W map, N = H * W tokens (T with the class token: 1 + N), D width of a token. A map becomes tokens in
raster order.
"""

import math
from collections.abc import Sequence
from itertools import accumulate
from operator import mul
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import DropPath, trunc_normal_
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from foveate.layers.in_place import added
from foveate.layers.mlp import Mlp
from foveate.layers.padding import pad_end
from foveate.layers.position import resize_position_table, sinusoid_table
from foveate.layers.recomputing import called, norm_linear
from foveate.layers.token_stage import (
    SMALL_STRIDES,
    STRIDES,
    TOKEN_WIDTH,
    TokenStageName,
    fit_channels,
    make_token_stage,
    map_to_tokens,
    tokens_to_map,
)

# width, depth, heads, MLP ratio, token stage. Source: table 1 of the paper and the released code.
VARIANTS: dict[str, tuple[int, int, int, float, TokenStageName]] = {
    "t2t_vit_7": (256, 7, 4, 2.0, "performer"),
    "t2t_vit_10": (256, 10, 4, 2.0, "performer"),
    "t2t_vit_12": (256, 12, 4, 2.0, "performer"),
    "t2t_vit_14": (384, 14, 6, 3.0, "performer"),
    "t2t_vit_19": (448, 19, 7, 3.0, "performer"),
    "t2t_vit_24": (512, 24, 8, 3.0, "performer"),
    "t2t_vit_t_14": (384, 14, 6, 3.0, "transformer"),
    "t2t_vit_t_19": (448, 19, 7, 3.0, "transformer"),
    "t2t_vit_t_24": (512, 24, 8, 3.0, "transformer"),
    "t2t_vit_c_14": (384, 14, 6, 3.0, "convolution"),
    "t2t_vit_14_resnext": (384, 14, 32, 3.0, "performer"),
    "t2t_vit_14_wide": (768, 4, 12, 3.0, "performer"),
}


class Attention(nn.Module):
    """Softmax self-attention of `norm(x)` over T tokens: (B, T, D) -> (B, T, D).

    qkv without bias, scale head_dim^-0.5: the published code can set width^-0.5 by a flag that its training never used.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, norm: nn.Module) -> Tensor:
        q, k, v = norm_linear(x, norm, self.qkv).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return called(self.proj, F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm transformer block, (B, T, D) -> (B, T, D)."""

    def __init__(self, width: int, attention: nn.Module, mlp: nn.Module, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = attention
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = mlp
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.attn(x, self.norm1))
        return added(x, self.drop_path2(self.mlp(x, self.norm2)))


class T2TViT(nn.Module):
    """T2T-ViT backbone and classifier, with timm's contract; any height and width from 16 px up.

    A picture is padded at its end to a multiple of 4 (with the token stage "none", of a patch's side), so that the maps have
    ceil(H/s) x ceil(W/s) places; the position table belongs to `img_size` and is resized per axis, in every forward, for a picture of
    another size (`set_input_size` does it once and for all).

    Feature maps, in the order of `feature_info`: after each of the two token layers (strides 4 and 8, 64 channels; none with the token
    stage "none"), then after each block (stride 16). `features_only=True` gives the two of the token stage and the last.

    Args:
        num_classes: width of the classifier; 0 for none.
        in_chans: channels of the picture.
        img_size: (H, W) or one number, in pixels, that the position table is made for.
        embed_dim, depth, num_heads, mlp_ratio: of the backbone.
        token_stage: "performer", "transformer", "convolution", or "none" for a plain embedding of patches. On ImageNet the paper has 81.5%
            with the stage and 79.5% without (T2T-ViT-14). In the small form here (docs/results.md: 5,000 pictures of CIFAR-10, 4 epochs, 3
            trainings each) they reach 31.6, 33.1, 36.4 and 41.2%: few pictures and epochs are better spent on plain patches.
        small_images: for pictures of 32 to 64 px: the strides of the soft splits are 2, 2, 1 instead of 4, 2, 2, so that 32 px give
            8 x 8 tokens. The parameters are the same but for the position table's size, so that published weights load; with the token
            stage "none" patches have 4 x 4 pixels instead of 16 x 16.
        global_pool: "token" (the class token) or "avg" (the mean of the others).
        drop_rate: dropout before the classifier.
        proj_drop_rate: dropout after each linear of the blocks' MLPs.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0 at the first.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        *,
        img_size: int | tuple[int, int] = 224,
        embed_dim: int = 256,
        depth: int = 7,
        num_heads: int = 4,
        mlp_ratio: float = 2.0,
        token_stage: TokenStageName = "performer",
        small_images: bool = False,
        global_pool: str = "token",
        drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_chans, self.num_heads, self.mlp_ratio, self.proj_drop_rate = in_chans, num_heads, mlp_ratio, proj_drop_rate
        self.img_size = _pair(img_size)
        self.global_pool = global_pool
        self.grad_checkpointing = False

        self.token_stage = make_token_stage(token_stage, in_chans, embed_dim, SMALL_STRIDES if small_images else STRIDES)
        self.strides: tuple[int, ...] = self.token_stage.strides
        self.stage_maps = len(self.strides) - 1
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(sinusoid_table(1 + math.prod(self.grid_size(self.img_size)), embed_dim), requires_grad=False)
        self.blocks = self.make_blocks(embed_dim, depth, drop_path_rate)
        self.num_features = self.head_hidden_size = self.widths[-1]
        self.norm: nn.Module = nn.LayerNorm(self.num_features)
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes)
        trunc_normal_(self.cls_token, std=0.02)
        self.apply(init_weights)

        *finer, last_reduction = accumulate(self.strides, mul)
        stage = [{"num_chs": TOKEN_WIDTH, "reduction": r, "module": f"token_stage.layer{i}"} for i, r in enumerate(finer, start=1)]
        last = [{"num_chs": c, "reduction": last_reduction, "module": f"blocks.{i}"} for i, c in enumerate(self.widths)]
        self.feature_info = stage + last

    def make_blocks(self, width: int, depth: int, drop_path_rate: float) -> nn.ModuleList:
        """The backbone's blocks; a model of another backbone overrides this and `widths`."""
        rates = torch.linspace(0, drop_path_rate, depth, device="cpu").tolist()
        return nn.ModuleList(Block(width, self.make_attention(width), self.make_mlp(width), rate) for rate in rates)

    def make_attention(self, width: int) -> nn.Module:
        """What a block calls with its tokens and the layer norm before the attention."""
        return Attention(width, self.num_heads)

    def make_mlp(self, width: int) -> nn.Module:
        """What a block calls with its tokens and the layer norm before the MLP."""
        return Mlp(width, int(width * self.mlp_ratio), inner_drop=self.proj_drop_rate, drop=self.proj_drop_rate)

    @property
    def widths(self) -> list[int]:
        """Channels after each entry of `blocks`."""
        return [self.cls_token.shape[-1]] * len(self.blocks)

    def grid_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Tokens (h, w) of a picture of `size` = (H, W) pixels."""
        height, width = size
        for stride in self.strides:
            height, width = -(-height // stride), -(-width // stride)
        return height, width

    def _embed(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """The token stage's maps, and the tokens with class token and positions, (B, 1 + N, D)."""
        table = resize_position_table(self.pos_embed, self.grid_size(self.img_size), self.grid_size((x.shape[-2], x.shape[-1])))
        maps, tokens = self.token_stage(pad_end(x.contiguous(memory_format=torch.channels_last), self.strides[0]))
        return maps, torch.cat((self.cls_token.expand(x.shape[0], -1, -1).to(tokens.dtype), tokens), dim=1) + table

    def _run(self, block: nn.Module, x: Tensor) -> Tensor:
        return checkpoint(block, x, use_reentrant=False) if self.grad_checkpointing and self.training else block(x)

    def forward_features(self, x: Tensor) -> Tensor:
        """All tokens, normalised: (B, in_chans, H, W) -> (B, 1 + N, D), the class token first."""
        _, tokens = self._embed(x)
        for block in self.blocks:
            tokens = self._run(block, tokens)
        return self.norm(tokens)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (B, num_classes) of the tokens, or with `pre_logits` the vector (B, D) before the classifier."""
        if self.global_pool == "token":
            x = x[:, 0]
        elif self.global_pool == "avg":
            x = x[:, 1:].mean(dim=1)
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Features in `indices` (of `feature_info`; all, the last n, or a list), after timm's contract: a list, or (last tokens, list).

        With `return_prefix_tokens` each is a pair (feature, class token), None for the token stage's maps, which have none.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"output_fmt: found {output_fmt!r}, expected 'NCHW' or 'NLC'")
        taken, last = feature_take_indices(self.stage_maps + len(self.blocks), indices)
        maps, tokens = self._embed(x)
        grid = self.grid_size((x.shape[-2], x.shape[-1]))
        features: list[tuple[Tensor, Tensor | None]] = [(x_bchw, None) for i, x_bchw in enumerate(maps) if i in taken]
        for index, block in enumerate(self.blocks, start=self.stage_maps):
            if stop_early and index > last:
                break
            tokens = self._run(block, tokens)
            if index in taken:
                shown = self.norm(tokens) if norm and index == self.stage_maps + len(self.blocks) - 1 else tokens
                features.append((tokens_to_map(shown[:, 1:], grid), shown[:, 0]))
        if output_fmt == "NLC":
            features = [(map_to_tokens(feature), prefix) for feature, prefix in features]
        results = features if return_prefix_tokens else [feature for feature, _ in features]
        return results if intermediates_only else (self.norm(tokens), results)

    def prune_intermediate_layers(self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True) -> list[int]:
        """Drops the blocks behind the last of `indices`, and the head: what a features-only model does not need."""
        taken, last = feature_take_indices(self.stage_maps + len(self.blocks), indices)
        self.blocks = self.blocks[: max(0, last + 1 - self.stage_maps)]
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0)
        return list(taken)

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh classifier of another width; 0 takes it away."""
        self.num_classes = num_classes
        self.global_pool = self.global_pool if global_pool is None else global_pool
        self.head = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()
        init_weights(self.head)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Computes the blocks again in the backward pass instead of keeping their activations."""
        self.grad_checkpointing = enable

    def set_input_size(self, img_size: int | tuple[int, int]) -> None:
        """Resizes the position table for pictures of `img_size` = (H, W) pixels."""
        size = _pair(img_size)
        table = resize_position_table(self.pos_embed.detach(), self.grid_size(self.img_size), self.grid_size(size))
        self.pos_embed = nn.Parameter(table, requires_grad=False)
        self.img_size = size
        self.pretrained_cfg: dict[str, Any] = {**self.pretrained_cfg, "input_size": (self.in_chans, *size)}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns of parameter names from the input to the output, for layer decay."""
        return {"stem": r"^cls_token|pos_embed|token_stage", "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]}

    def no_weight_decay(self) -> set[str]:
        return {"cls_token", "pos_embed"} | {name for name, _ in self.named_parameters() if name.endswith("random_features")}

    def adapt_state_dict(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[tuple[str, tuple[int, ...], tuple[int, ...]]]]:
        """`state` with its position table and first layer fitted to this model, and what was changed: name, shape found, shape made.

        A table of another length must be that of a square grid, as every published one is: nothing in a file tells the sides.
        """
        fitted = dict(state)
        table = state.get("pos_embed")
        if table is not None and table.shape[1] != self.pos_embed.shape[1]:
            side = math.isqrt(table.shape[1] - 1)
            if side * side == table.shape[1] - 1:
                fitted["pos_embed"] = resize_position_table(table, (side, side), self.grid_size(self.img_size))
        own = self.state_dict()
        for name in own:
            if name in state and state[name].shape != own[name].shape and name.startswith(FITTED):
                fitted[name] = fit_channels(state[name], self.in_chans)
        changes = [
            (name, tuple(state[name].shape), tuple(value.shape)) for name, value in fitted.items() if value.shape != state[name].shape
        ]
        return fitted, changes


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def init_weights(module: nn.Module) -> None:
    """Linear layers truncated normal 0.02, biases 0; norms keep 1 and 0, convolutions PyTorch's own start."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def default_config(first_conv: str) -> dict[str, Any]:
    """timm's description of a T2T-ViT: evaluation at 224 after resizing to 248, bicubic."""
    return {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "crop_pct": 224 / 248,
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": first_conv,
        "classifier": "head",
        "license": "apache-2.0",
    }


FIRST_LAYER = {"performer": "token_stage.layer1.kqv", "transformer": "token_stage.layer1.qkv", "convolution": "token_stage.conv1"}
FITTED = ("token_stage.layer1.", "token_stage.conv1.", "token_stage.patches.")

default_cfgs = generate_default_cfgs({name: default_config(FIRST_LAYER[stage]) for name, (_, _, _, _, stage) in VARIANTS.items()})


def register(name: str, model_class: type[T2TViT], variant: dict[str, Any]) -> None:
    """Make `name` known to timm: `model_class` with the arguments in `variant`, which whoever creates the model may override."""

    def create(pretrained: bool = False, **kwargs: Any) -> T2TViT:
        arguments = {**variant, **kwargs}
        indices = (-1,) if arguments.get("token_stage") == "none" else (0, 1, -1)
        features = {"out_indices": indices, "feature_cls": "getter"}
        return build_model_with_cfg(model_class, name, pretrained, feature_cfg=features, **arguments)

    create.__name__, create.__module__ = name, model_class.__module__
    create.__doc__ = f"{model_class.__name__} with {variant}; takes its arguments."
    register_model(create)


for _name, (_width, _depth, _heads, _ratio, _stage) in VARIANTS.items():
    _variant = {"embed_dim": _width, "depth": _depth, "num_heads": _heads, "mlp_ratio": _ratio, "token_stage": _stage}
    register(_name, T2TViT, _variant)
