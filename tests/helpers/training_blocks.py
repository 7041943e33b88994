"""Blocks in training with random weights, and joined ones."""

from functools import partial
from typing import Any

import torch

from foveate.layers.feedforward import MultiPathFeedForward
from foveate.layers.gabor import LearnableGaborFilter
from foveate.layers.mlp import Mlp
from foveate.models.fvit import BionicFocalVisionBlock
from foveate.models.t2t_vit import Attention, Block
from foveate.speed.joined.training_blocks import JoinedTrainingBlock
from foveate.speed.joined.training_token_blocks import JoinedTokenTrainingBlock
from joined_modules import joined_copy

SMALL: dict[str, Any] = {"depths": (1, 1, 2, 1), "widths": (16, 24, 32, 40), "stem_width": 8, "num_classes": 5}


def make_block(
    width: int = 24,
    *,
    side: int = 3,
    activation: str = "relu",
    shared: bool = False,
    paths: int = 2,
    untouched: int = 0,
    hidden: int = 60,
    drop: float = 0.0,
    drop_path: float = 0.3,
    order: str = "raster",
) -> Any:
    """A block in training with random weights everywhere."""
    mixer = LearnableGaborFilter(width, shared=shared, kernel_size=side, activation=activation)  # type: ignore[arg-type]
    feed_forward = MultiPathFeedForward(width, hidden, paths=paths, untouched=untouched, drop=drop)
    block: Any = BionicFocalVisionBlock(width, mixer, feed_forward, drop_path)
    generator = torch.Generator().manual_seed(width + side + paths)
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.startswith("mixer"):
                parameter.add_(0.1 * noise)
            else:
                parameter.copy_(0.3 * noise)
    block.token_order = order
    return block.train()


joined = partial(joined_copy, JoinedTrainingBlock)


def make_token_block(width: int = 48, heads: int = 3, hidden: int = 100, drop: float = 0.0, drop_path: float = 0.3) -> Any:
    """The same of T2T-ViT."""
    block: Any = Block(width, Attention(width, heads), Mlp(width, hidden, inner_drop=drop, drop=drop), drop_path)
    generator = torch.Generator().manual_seed(width)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return block.train()


joined_tokens = partial(joined_copy, JoinedTokenTrainingBlock)
