"""Blocks in training with random weights, joined ones, and what a step of them learns."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from foveate.layers.feedforward import MultiPathFeedForward
from foveate.layers.gabor import LearnableGaborFilter
from foveate.models.fvit import BionicFocalVisionBlock
from foveate.speed.joined_training import JoinedTrainingBlock
from joined_modules import joined_copy, random_map

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


def learnt(model: nn.Module, x: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """The output and all gradients of one training step whose loss weighs the output with random numbers."""
    x = x.detach().clone().requires_grad_()
    torch.manual_seed(seed)
    y = model(x)
    y.backward(random_map(*y.shape, seed=99).to(y.dtype))
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    return {"y": y.detach(), "x": x.grad, **gradients}  # type: ignore[dict-item]


def assert_gradients_are_slopes(model: nn.Module, x: Tensor, step: float = 0.003) -> None:
    """Along a random direction of the input, and of each learnt parameter, a loss changes as its gradient says, whatever dropout drops."""
    weights = random_map(*model(x).shape, seed=1).double()

    def loss() -> Tensor:
        torch.manual_seed(3)
        return (model(x).double() * weights).sum()

    x.requires_grad_()
    learnt_ones = {"x": x} | {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    found = torch.autograd.grad(loss(), list(learnt_ones.values()))
    for (name, values), gradient in zip(learnt_ones.items(), found, strict=True):
        direction = random_map(*values.shape, seed=2)
        with torch.no_grad():
            losses = []
            for change in (step, -2 * step):
                values.add_(change * direction)
                losses.append(loss())
            values.add_(step * direction)
        slope, expected = float((losses[0] - losses[1]) / (2 * step)), float((gradient.double() * direction).sum())
        size = float((gradient.double() * direction).norm())
        assert abs(slope - expected) <= 0.01 * size + 0.03, f"{name}: {slope} beside {expected}, of numbers of size {size}"


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 3e-5) -> None:
    """Every tensor within `tolerance` of its largest number, and None where None is expected, for what is frozen."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] is None) == (value is None), name
        if value is None:
            continue
        scale = float(value.abs().max()) + 1e-6
        deviation = float((found[name].double() - value.double()).abs().max())
        assert deviation <= tolerance * scale, f"{name}: {deviation} beside {scale}"
