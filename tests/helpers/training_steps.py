"""What a training step learns, and what must hold of a joined module's steps, whatever it is."""

import copy

import torch
from torch import Tensor, nn

from joined_modules import random_map


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


def assert_threads_change_nothing(fast: nn.Module, x: Tensor, tolerance: float = 3e-5) -> None:
    """With any number of threads the gradients are the exact ones, and the same again to the bit."""
    expected, threads = learnt(copy.deepcopy(fast).double(), x.double()), torch.get_num_threads()
    try:
        for count in (1, 2, 3, 16):
            torch.set_num_threads(count)
            found = [learnt(copy.deepcopy(fast), x) for _ in range(2)]
            assert_close(found[0], expected, tolerance)
            assert_close(found[0], found[1], tolerance=0.0)
    finally:
        torch.set_num_threads(threads)


def assert_default_format_does_not_matter(fast: nn.Module, x: Tensor, dtype: torch.dtype) -> None:
    """The gradients of the weights are the same while PyTorch makes tensors in another number format."""
    expected, weights = learnt(fast, x), random_map(*x.shape, seed=99)
    try:
        torch.set_default_dtype(dtype)
        torch.manual_seed(0)
        fast(x).backward(weights)
    finally:
        torch.set_default_dtype(torch.float32)
    found = {name: parameter.grad for name, parameter in fast.named_parameters()}
    assert_close(found, {name: expected[name] for name in found})  # type: ignore[arg-type]


def assert_backward_leaves_autocast(fast: nn.Module, x: Tensor) -> None:
    """A backward pass under autocast is in the number format of the forward pass before it."""
    expected = learnt(fast, x)
    torch.manual_seed(0)
    y = fast(x)
    with torch.autocast("cpu", torch.bfloat16):
        y.backward(random_map(*y.shape, seed=99))
    found = {name: parameter.grad for name, parameter in fast.named_parameters()}
    assert_close(found, {name: expected[name] for name in found})  # type: ignore[arg-type]


def assert_bfloat16_is_no_worse(fast: nn.Module, layers: nn.Module, x: Tensor, *, exactly: bool = True) -> None:
    """Under autocast all has the format that the layers' has and, `exactly`, is as near to the exact gradients as theirs."""
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = learnt(fast, x), learnt(layers, x)
    assert {name: value.dtype for name, value in found.items()} == {name: value.dtype for name, value in expected.items()}
    exact = learnt(copy.deepcopy(layers).double(), x.double()) if exactly else {}
    for name, value in exact.items():
        near, far = ((one[name].double() - value).norm() / (value.norm() + 1e-9) for one in (found, expected))
        assert near < 1.5 * far + 0.005, name


def assert_trains_alike(plain: nn.Module, fast: nn.Module, x: Tensor, lr: float) -> None:
    """Ten steps of two models for six pictures of five classes: their losses are alike, and fall."""
    losses: list[list[float]] = []
    for model in (plain, fast):
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        losses.append([])
        for _ in range(10):
            loss = nn.functional.cross_entropy(model(x), torch.tensor([0, 1, 2, 3, 4, 0]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    torch.testing.assert_close(torch.tensor(losses[1]), torch.tensor(losses[0]), atol=2e-3, rtol=2e-3)
    assert losses[1][-1] < losses[1][0]
