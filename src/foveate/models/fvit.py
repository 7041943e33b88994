"""FViT: a focal vision transformer with Gabor filters in place of self-attention.

Paper: "FViT: A Focal Vision Transformer with Gabor Filter", arXiv 2402.11303. Authors' code: nkusyl/FViT. Written from the paper and from
a description of the released code's behaviour; parity with its outputs is tested.

Legend: B batch, C channels, H x W map. Between the stem and the head a map is (B, H, W, C) in memory, which is (B, C, H, W) channels-last
seen from the other side: `permute` changes the view, never the numbers, and tokens need no reshaping at all.

Three families, one set of parts: `fvit_tiny` ... follow the paper (a bank of one Gabor filter per channel, several feed-forward paths, a
convolution in the head); `fvit_tiny_dp` ... follow the released code and its published weights (one filter per block, two paths, a linear
head); `fvit_tiny_plus` ... are this project's: the bank, two paths, and position embeddings that begin as the identity. The paper's table
of widths and depths could not be recovered for the first family, which uses those of the second.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from timm.layers import DropPath, trunc_normal_
from timm.models import adapt_input_conv, build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from foveate.layers.choices import check_choice
from foveate.layers.feedforward import MultiPathFeedForward
from foveate.layers.gabor import GaborStart, LearnableGaborFilter, released_order
from foveate.layers.in_place import Activation, added, batch_norm
from foveate.layers.mixers import MixerName, make_mixer
from foveate.layers.mlp import Mlp
from foveate.layers.one_call import convolved
from foveate.layers.padding import pad_end
from foveate.layers.position import ConvPositionEmbedding
from foveate.layers.products import linear_product
from foveate.layers.recomputing import is_plain, is_untouched
from foveate.layers.token_stage import map_to_tokens

TokenOrder = Literal["raster", "released"]
PositionStart = Literal["kaiming", "zero"]

HEAD_WIDTH = 1280

# name: widths, depths, ratio of the feed-forward, width of the stem. Source: the authors' configurations.
SIZES: dict[str, tuple[tuple[int, ...], tuple[int, ...], float, int]] = {
    "tiny": ((64, 128, 256, 512), (3, 3, 15, 3), 3.0, 32),
    "small": ((72, 144, 288, 576), (4, 4, 24, 4), 3.5, 36),
    "base": ((80, 160, 320, 640), (5, 5, 30, 5), 4.0, 40),
    "large": ((88, 176, 352, 704), (6, 6, 36, 6), 4.0, 44),
}
# suffix of the name: what tells the families apart.
FAMILIES: dict[str, dict[str, Any]] = {
    "": {"shared_gabor": False, "gabor_start": "spread", "paths": 4, "conv_head": True},
    "_dp": {"shared_gabor": True, "gabor_start": "random", "paths": 2, "conv_head": False},
    "_plus": {"shared_gabor": False, "gabor_start": "spread", "paths": 2, "conv_head": True, "position_start": "zero"},
}


class Stem(nn.Module):
    """Three 3x3 convolutions, each conv -> GELU -> BatchNorm, the first with a stride: (B, in_chans, H, W) -> (B, C, H/s, W/s)."""

    def __init__(self, in_chans: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, width, 3, stride, padding=1)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width, 3, padding=1)
        self.norm3 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        x = batch_norm(self.norm1, convolved(self.conv1, x, "gelu"))
        x = batch_norm(self.norm2, convolved(self.conv2, x, "gelu"))
        return batch_norm(self.norm3, convolved(self.conv3, x, "gelu"))


class PatchEmbedding(nn.Module):
    """2x2 convolution with stride 2 (or 1), then LayerNorm: (B, C, H, W) -> (B, ceil(H/s), ceil(W/s), C')."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.proj = nn.Conv2d(channels, width, 2, stride)
        self.norm = nn.LayerNorm(width)

    def forward(self, x_bchw: Tensor) -> Tensor:
        x_bchw = pad_end(x_bchw, 2) if self.stride == 2 else nn.functional.pad(x_bchw, (0, 1, 0, 1))
        as_linear = self.stride == 2 and is_plain(self.proj) and (torch.is_grad_enabled() or x_bchw.device.type != "cpu")
        x_bhwc = self._project_patches(x_bchw.permute(0, 2, 3, 1)) if as_linear else self.proj(x_bchw).permute(0, 2, 3, 1)
        return self.norm(x_bhwc)

    def _project_patches(self, x_bhwc: Tensor) -> Tensor:
        """The convolution as a linear layer on patches that do not overlap: its backward pass is several times faster."""
        patches = x_bhwc.unflatten(1, (-1, 2)).unflatten(3, (-1, 2)).transpose(2, 3).flatten(3)
        return linear_product(patches, self.proj.weight.permute(0, 2, 3, 1).flatten(1), self.proj.bias)


class BionicFocalVisionBlock(nn.Module):
    """`X = DWConv(X) + X; Y = X + LGF(LN(X)); Z = Y + FFN(LN(Y))`: (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, width: int, mixer: nn.Module, ffn: nn.Module, drop_path: float) -> None:
        super().__init__()
        self.token_order: TokenOrder = "raster"
        self.position = ConvPositionEmbedding(width)
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.mixer = mixer
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.ffn = ffn
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.position(x)
        response = self.mixer(x, self.norm1)
        if self.token_order == "released":
            response = released_order(response)
        x = added(x, self.drop_path1(response))
        keeps_all = is_untouched(self.drop_path2, DropPath) and not self.drop_path2.training
        if keeps_all and isinstance(self.ffn, MultiPathFeedForward) and self.ffn.adds_to(x):
            return self.ffn.added_to(x, self.norm2)
        return added(x, self.drop_path2(self.ffn(x, self.norm2)))


class Stage(nn.Module):
    """Patch embedding and its blocks: (B, C, H, W) -> (B, C', ceil(H/s), ceil(W/s)), channels-last in memory."""

    def __init__(self, embed: PatchEmbedding, blocks: Sequence[BionicFocalVisionBlock]) -> None:
        super().__init__()
        self.embed = embed
        self.blocks = nn.ModuleList(blocks)
        self.grad_checkpointing = False

    def forward(self, x_bchw: Tensor) -> Tensor:
        x = self.embed(x_bchw)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.grad_checkpointing and self.training else block(x)
        return x.permute(0, 3, 1, 2)


class FViT(nn.Module):
    """FViT backbone and classifier, with timm's contract; any height and width from 16 px up.

    Args:
        num_classes: width of the classifier; 0 for none.
        in_chans: channels of the picture.
        widths, depths: channels and blocks of the four stages.
        mlp_ratio: hidden width of the feed-forward over the stage's width.
        stem_width: channels of the three stem convolutions.
        shared_gabor: one Gabor filter per block instead of one per channel: 47.6 instead of 50.0% at small scale (docs/results.md: 5,000
            pictures of CIFAR-10, 4 epochs, 3 trainings each). There deviations are 0.3 to 2.0, and nothing said here of the Gabor bank is
            told apart from its best form by the test for nine models, so the defaults stay as they are.
        kernel_size: side of the Gabor kernels in pixels, odd. Open in the paper; 3 as in the released code. Sides 3, 5, 7 and 9 reach
            50.0, 51.6, 50.3 and 48.9% there.
        gabor_start, gabor_activation: see `LearnableGaborFilter`. "random" instead of "spread" reaches 48.4% there, "gelu" and "none"
            instead of "relu" 50.6 and 46.7%.
        learn_gabor: False keeps the filters as they start: 50.2% there, so that in a short training the start is what counts.
        mixer: what mixes the tokens, one for all stages or one for each; all but "gabor" are the papers' ablations, see
            `layers/mixers.py`.
        paths: groups of the multi-path feed-forward; 0 for a plain one (linear, GELU, linear). Open in the paper, which draws three
            convolved groups; measured at small scale (docs/results.md: 5,000 pictures of CIFAR-10, 4 epochs, 3 trainings each) 4, 3 and 2
            paths and none reach 50.0, 49.4, 50.2 and 50.0% with deviations of 0.6 to 2.6: not told apart, so the default stays 4.
        untouched_paths: how many of the groups pass unfiltered; 1 of 4 reaches 49.8% there.
        position_start: "kaiming" draws the position embeddings as all convolutions, as published, and every block then adds twice the
            variance of the map to it (nine taps of variance 2/9), whatever the norms inside do; "zero" lets each begin as the identity.
            Measured (docs/results.md): with it 51.8 +- 0.5% instead of 50.0 +- 1.5 in the small form (5,000 pictures of CIFAR-10, 4 epochs,
            3 trainings each), and a lower loss in `fvit_tiny` at full depth; but 43.6 +- 1.8 instead of 46.2 +- 0.3 in the small form of
            `fvit_tiny_dp`, whose filters start at random. So the paper's family keeps "kaiming" and `fvit_tiny_plus` has "zero".
        conv_head: 1x1 convolution to 1280 -> BatchNorm -> SiLU before pooling (the paper), instead of LayerNorm (the released code).
        small_images: for pictures of 32 to 64 px: the stem and the first embedding keep the size, so that the strides are 1, 2, 4, 8
            instead of 4, 8, 16, 32. The parameters are the same: published weights load.
        token_order: "released" for the authors' weights; see `released_order`.
        global_pool: "avg", or "" for none.
        drop_rate: dropout before the classifier.
        proj_drop_rate: dropout after each linear of the feed-forward.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0 at the first.

    Raises:
        ValueError: for a word that an argument does not know, and for mixers that are neither one nor one for each stage.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        *,
        widths: Sequence[int] = SIZES["tiny"][0],
        depths: Sequence[int] = SIZES["tiny"][1],
        mlp_ratio: float = SIZES["tiny"][2],
        stem_width: int = SIZES["tiny"][3],
        shared_gabor: bool = False,
        kernel_size: int = 3,
        gabor_start: GaborStart = "spread",
        gabor_activation: Activation = "relu",
        learn_gabor: bool = True,
        mixer: MixerName | Sequence[MixerName] = "gabor",
        paths: int = 4,
        untouched_paths: int = 0,
        position_start: PositionStart = "kaiming",
        conv_head: bool = True,
        small_images: bool = False,
        token_order: TokenOrder = "raster",
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        proj_drop_rate: float = 0.05,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        check_choice("position_start", position_start, PositionStart)
        check_choice("gabor_start", gabor_start, GaborStart)
        check_choice("gabor_activation", gabor_activation, Activation)
        self.in_chans, self.global_pool = in_chans, global_pool
        self.num_features = widths[-1]
        self.head_hidden_size = HEAD_WIDTH if conv_head else widths[-1]
        strides = (1, 1, 2, 2, 2) if small_images else (2, 2, 2, 2, 2)

        def make_gabor(width: int) -> nn.Module:
            form = {"shared": shared_gabor, "kernel_size": kernel_size, "start": gabor_start}
            return LearnableGaborFilter(width, **form, activation=gabor_activation, learnt=learn_gabor)  # type: ignore[arg-type]

        def make_ffn(width: int) -> nn.Module:
            hidden = int(width * mlp_ratio)
            if paths == 0:
                return Mlp(width, hidden, inner_drop=proj_drop_rate, drop=proj_drop_rate)
            return MultiPathFeedForward(width, hidden, paths=paths, untouched=untouched_paths, drop=proj_drop_rate)

        mixers = (mixer,) * len(depths) if isinstance(mixer, str) else tuple(mixer)
        if len(mixers) != len(depths):
            raise ValueError(f"mixer: found {len(mixers)}, expected one for all stages or one for each of {len(depths)}")
        drop_paths = iter(torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist())

        self.stem = Stem(in_chans, stem_width, strides[0])
        self.stages = nn.ModuleList()
        self.feature_info: list[dict[str, Any]] = []
        channels, reduction = stem_width, strides[0]
        for index, (width, depth, stride, kind) in enumerate(zip(widths, depths, strides[1:], mixers, strict=True)):
            blocks = [
                BionicFocalVisionBlock(
                    width,
                    make_mixer(kind, width, partial(make_gabor, width), kernel_size, gabor_activation),
                    make_ffn(width),
                    next(drop_paths),
                )
                for _ in range(depth)
            ]
            self.stages.append(Stage(PatchEmbedding(channels, width, stride), blocks))
            channels, reduction = width, reduction * stride
            self.feature_info.append({"num_chs": width, "reduction": reduction, "module": f"stages.{index}"})
        self.norm = nn.Identity() if conv_head else nn.LayerNorm(channels, eps=1e-6)
        self.conv_head: nn.Module = nn.Identity()
        if conv_head:
            self.conv_head = nn.Sequential(nn.Conv2d(channels, HEAD_WIDTH, 1, bias=False), nn.BatchNorm2d(HEAD_WIDTH), nn.SiLU())
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes)
        self.apply(init_weights)
        if position_start == "zero":
            self._begin_positions_as_identity()
        self.token_order = token_order

    def _begin_positions_as_identity(self) -> None:
        for module in self.modules():
            if isinstance(module, ConvPositionEmbedding):
                nn.init.zeros_(module.weight)

    @property
    def token_order(self) -> TokenOrder:
        """The order in which the Gabor filters hand their response on, "raster" or "released", one for all blocks."""
        return next(module.token_order for module in self.modules() if isinstance(module, BionicFocalVisionBlock))

    @token_order.setter
    def token_order(self, order: TokenOrder) -> None:
        check_choice("token_order", order, TokenOrder)
        for module in self.modules():
            if isinstance(module, BionicFocalVisionBlock):
                module.token_order = order

    def forward_features(self, x: Tensor) -> Tensor:
        """The last map, normalised: (B, in_chans, H, W) -> (B, C4, ceil(H/32), ceil(W/32))."""
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        for stage in self.stages:
            x = stage(x)
        return self._normalise(x)

    def _normalise(self, x_bchw: Tensor) -> Tensor:
        return self.norm(x_bchw.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (B, num_classes) of the last map, or with `pre_logits` the vectors (B, head_hidden_size) before the classifier."""
        x = self.conv_head(x)
        if self.global_pool == "avg":
            x = map_to_tokens(x).mean(1)  # over tokens: its gradient is channels-last too, where the map's is slow
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Maps of the stages in `indices` (all, the last n, or a list), after timm's contract: a list, or (last map, list)."""
        if output_fmt not in ("NCHW", "NHWC"):
            raise ValueError(f"output_fmt: found {output_fmt!r}, expected 'NCHW' or 'NHWC'")
        taken, last = feature_take_indices(len(self.stages), indices)
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        maps = []
        for index, stage in enumerate(self.stages[: last + 1] if stop_early else self.stages):
            x = stage(x)
            if index in taken:
                feature = self._normalise(x) if norm and index == len(self.stages) - 1 else x
                maps.append(feature if output_fmt == "NCHW" else feature.permute(0, 2, 3, 1))
        return maps if intermediates_only else (self._normalise(x), maps)

    def prune_intermediate_layers(self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True) -> list[int]:
        """Drops the stages behind the last of `indices`, and the head: what a features-only model does not need."""
        taken, last = feature_take_indices(len(self.stages), indices)
        self.stages = self.stages[: last + 1]
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.conv_head = nn.Identity()
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
        for module in self.modules():
            if isinstance(module, Stage):
                module.grad_checkpointing = enable

    def set_input_size(self, img_size: int | tuple[int, int]) -> None:
        """Nothing depends on the size: only the size named in `pretrained_cfg` changes."""
        size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        self.pretrained_cfg: dict[str, Any] = {**self.pretrained_cfg, "input_size": (self.in_chans, *size)}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns of parameter names from the input to the output, for layer decay."""
        fine = [(r"^stages\.(\d+)\.embed", (0,)), (r"^stages\.(\d+)\.blocks\.(\d+)", None), (r"^norm|^conv_head", (99999,))]
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else fine}

    def no_weight_decay(self) -> set[str]:
        """Names of the Gabor parameters."""
        filters = (name for name, module in self.named_modules() if isinstance(module, LearnableGaborFilter))
        return {f"{name}.{parameter}" for name in filters for parameter, _ in self.get_submodule(name).named_parameters()}

    def adapt_state_dict(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[tuple[str, tuple[int, ...], tuple[int, ...]]]]:
        """`state` with its first convolution fitted to `in_chans`, and what was changed: name, shape found, shape made."""
        name = "stem.conv1.weight"
        weight = state.get(name)
        if weight is None or weight.shape[1] == self.in_chans:
            return state, []
        fitted = adapt_input_conv(self.in_chans, weight)
        return {**state, name: fitted}, [(name, tuple(weight.shape), tuple(fitted.shape))]

    def bake(self) -> "FViT":
        """Put a constant convolution in the place of every learnt Gabor filter: for inference, as nothing of it can be learnt any more."""
        for module in list(self.modules()):
            if isinstance(module, BionicFocalVisionBlock) and isinstance(module.mixer, LearnableGaborFilter):
                module.mixer = module.mixer.bake()
        return self


def init_weights(module: nn.Module) -> None:
    """Linear layers truncated normal 0.02, convolutions Kaiming normal by fan-out, biases 0; norms and Gabor filters keep theirs."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.weight.shape[0] * module.weight[0, 0].numel() // module.groups
        nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _config() -> dict[str, Any]:
    return {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 224 / 256,
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": "stem.conv1",
        "classifier": "head",
        "license": "apache-2.0",
    }


default_cfgs = generate_default_cfgs({f"fvit_{size}{suffix}": _config() for size in SIZES for suffix in FAMILIES})


def _register(size: str, suffix: str) -> Callable[..., FViT]:
    widths, depths, ratio, stem_width = SIZES[size]
    variant = {"widths": widths, "depths": depths, "mlp_ratio": ratio, "stem_width": stem_width, **FAMILIES[suffix]}

    def create(pretrained: bool = False, **kwargs: Any) -> FViT:
        features = {"out_indices": (0, 1, 2, 3), "feature_cls": "getter"}
        return build_model_with_cfg(FViT, create.__name__, pretrained, feature_cfg=features, **{**variant, **kwargs})

    create.__name__ = f"fvit_{size}{suffix}"
    family = ", ".join(f"{name}={value}" for name, value in FAMILIES[suffix].items())
    create.__doc__ = f"FViT {size} with {family}; the arguments of `FViT`."
    return register_model(create)


for _size in SIZES:
    for _suffix in FAMILIES:
        _register(_size, _suffix)
