"""`foveate.optimize`: a model rewritten for inference, with the same outputs."""

import copy
import logging
from typing import Any

import torch
from torch import nn

from foveate.layers.gabor import LearnableGaborFilter
from foveate.layers.recomputing import compute_dtype
from foveate.layers.token_layers import TokenPerformer
from foveate.models.fvit import BionicFocalVisionBlock, FViT
from foveate.models.t2t_vit import Block
from foveate.speed.folding import fold_batch_norm, fold_norm
from foveate.speed.joined.blocks import JoinedBlock
from foveate.speed.joined.classifier import JoinedT2TViT
from foveate.speed.joined.embedding import JoinedEmbedding
from foveate.speed.joined.stem import JoinedStem
from foveate.speed.joined.token_blocks import JoinedTokenBlock
from foveate.speed.joined.token_layers import JoinedTokenPerformer
from foveate.speed.joined.training_blocks import JoinedTrainingBlock
from foveate.speed.joined.training_stem import JoinedTrainingStem
from foveate.speed.joined.training_token_blocks import JoinedTokenTrainingBlock
from foveate.speed.joined.training_token_layers import JoinedTokenPerformerTraining
from foveate.speed.native.library import find_compiler, pytorchs_openmp

BLOCKS = JoinedBlock, JoinedTokenBlock
TRAINING_PARTS = JoinedTrainingBlock, JoinedTrainingStem, JoinedTokenTrainingBlock, JoinedTokenPerformerTraining

_logger = logging.getLogger(__name__)


def optimize(model: nn.Module, *, compile: bool = True) -> nn.Module:  # noqa: A002
    """A copy of a model for inference: constants folded into the weights, what is bound by memory joined; the outputs stay.

    What was done is logged as information and stands in the copy's `optimized`. Outputs differ from the model's by rounding alone. The copy
    cannot be trained, nor its weights saved for one that can; it takes pictures of any size as before. On processors the blocks of FViT and
    T2T-ViT, the former's stem and embeddings and the latter's token layers run in C++, see `JoinedBlock`, `JoinedStem`, `JoinedEmbedding`,
    `JoinedTokenBlock` and `JoinedTokenPerformer`, and nothing else is compiled; the first process on a machine waits some seconds for that,
    later ones load what it made (`native/kept_libraries.py`). Any other model (and these where PyTorch brings no GNU OpenMP) is compiled by
    torch.compile, which takes minutes, and the first picture of each new size waits for it again. Bring the model to its device and number
    format first.

    Args:
        model: of this project, or anything around one (a detector, a segmenter): what it holds of FViT and T2T-ViT is rewritten. It is
            left as it was.
        compile: False leaves compilers alone: the copy is the rewritten eager model.
    """
    copied = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
    _part(copied)
    steps = [_bake(copied), _fold_norms(copied), _fold_head(copied)]
    if compile:
        steps.append(_join(copied) if _is_joinable(copied) and pytorchs_openmp() else _compile(copied))
    steps = [step for step in steps if step]
    copied.optimized = tuple(steps)  # type: ignore[assignment]
    _logger.info("optimized: %s", "; ".join(steps) or "nothing to do")
    return copied


def optimize_for_training(model: nn.Module) -> tuple[str, ...]:
    """Makes a model that trains on a processor faster, in place, and says what was done; nothing where there is nothing to do.

    FViT's blocks and stem, T2T-ViT's blocks and token layers run in C++ in both directions, which the first process on a machine compiles
    (11 and 8 s), see `JoinedTrainingBlock`, `JoinedTrainingStem`, `JoinedTokenTrainingBlock` and `JoinedTokenPerformerTraining`: numbers
    and gradients stay up to rounding, names of modules and parameters too, so that weights are saved and loaded as before. Dropout draws
    other numbers. Every model stays as it is on other devices or without a C++ compiler; parts whose layers are replaced or hooked later go
    through their layers again. `foveate train` does this itself.

    Args:
        model: of this project, or anything around one (a detector, a segmenter), on its device. Where it trains under autocast, call this
            under it, too, so that no other form is compiled.
    """
    steps = []
    for kind in TRAINING_PARTS:
        blocks: list[Any] = [module for module in model.modules() if kind.fits(module)]
        if blocks and kind.can_join(compute_dtype(next(blocks[0].parameters()))):
            for block in blocks:
                kind.join(block)
            steps.append(f"{len(blocks)} {kind.KIND}")
    return tuple(steps)


def _part(model: nn.Module) -> None:
    """Undoes `optimize_for_training`."""
    joined: list[Any] = [module for module in model.modules() if isinstance(module, TRAINING_PARTS)]
    for block in joined:
        block.__class__ = block.LAYERS


def _bake(model: nn.Module) -> str:
    count = 0
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LearnableGaborFilter):
                setattr(module, name, child.bake().eval().requires_grad_(requires_grad=False))
                count += 1
    return f"{count} Gabor filters baked" if count else ""


def _fold_norms(model: nn.Module) -> str:
    count = 0
    for module in model.modules():
        if isinstance(module, BionicFocalVisionBlock):
            pairs: list[tuple[Any, Any]] = [(module.norm2, module.ffn.fc1), (module.norm1, getattr(module.mixer, "qkv", None))]
        elif isinstance(module, Block):
            pairs = [(module.norm1, getattr(module.attn, "qkv", None)), (module.norm2, getattr(module.mlp, "fc1", None))]
        elif isinstance(module, TokenPerformer):
            pairs = [(module.norm2, getattr(module.mlp, "fc1", None))]
        else:
            continue
        for norm, linear in pairs:
            if isinstance(norm, nn.LayerNorm) and isinstance(linear, nn.Linear):
                fold_norm(norm, linear)
                count += 1
    return f"{count} layer norms' gains and biases folded into the next linear" if count else ""


def _fold_head(model: nn.Module) -> str:
    count = 0
    for module in model.modules():
        if isinstance(module, FViT) and isinstance(module.conv_head, nn.Sequential) and isinstance(module.conv_head[1], nn.BatchNorm2d):
            layers: list[Any] = list(module.conv_head)
            convolution, norm, activation = layers
            module.conv_head = nn.Sequential(fold_batch_norm(convolution, norm), nn.Identity(), activation)
            count += 1
    return f"{count} batch norms folded into the convolution before" if count else ""


def _is_joinable(model: nn.Module) -> bool:
    return any(isinstance(module, BLOCKS) or any(kind.fits(module) for kind in BLOCKS) for module in model.modules())


def _join(model: nn.Module) -> str:
    """What had been joined before is counted once more."""
    counts = {}
    for kind in (*BLOCKS, JoinedEmbedding, JoinedStem, JoinedTokenPerformer):
        fitting: list[Any] = [module for module in model.modules() if kind.fits(module)]
        if fitting and kind.can_join(next(fitting[0].parameters()).dtype):
            for block in fitting:
                kind.join(block)
        count = sum(isinstance(module, kind) for module in model.modules())
        if count:
            counts[kind.KIND] = count
    for module in filter(JoinedT2TViT.fits, model.modules()):
        JoinedT2TViT.join(module)
    classifiers = [JoinedT2TViT.KIND] * any(isinstance(module, JoinedT2TViT) for module in model.modules())
    return "; ".join([f"{count} {words}" for words, count in counts.items()] + classifiers)


def _compile(model: nn.Module) -> str:
    if not torch.cuda.is_available() and find_compiler() is None:
        return ""
    model.compile(options={"freezing": True})
    return "compiled with constant weights"
