from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from foveate.layers.mlp import Mlp
from foveate.layers.recomputing import gelu_linear, norm_linear

Run = Callable[[Tensor], Tensor]


def pair(width: int, out: int, *, biased: bool = True, dtype: torch.dtype = torch.float64) -> tuple[nn.LayerNorm, nn.Linear]:
    norm, linear = nn.LayerNorm(width, eps=1e-6, bias=biased).to(dtype), nn.Linear(width, out, bias=biased).to(dtype)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm, linear


def outcome(run: Run, x: Tensor, *layers: nn.Module) -> list[Tensor]:
    """The output, and the gradients of the sum of its squares to x and to all parameters."""
    own = x.clone().requires_grad_()
    y = run(own)
    return [y.detach(), *torch.autograd.grad(y.float().square().sum(), [own, *(p for layer in layers for p in layer.parameters())])]


def kept(run: Run, x: Tensor, *layers: nn.Module) -> int:
    """Numbers kept for the backward pass, each piece of memory once, without the parameters of `layers`."""
    pieces: dict[int, int] = {}
    parameters = [parameter.data_ptr() for layer in layers for parameter in layer.parameters()]

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in parameters:
            pieces[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run(x)
    return sum(pieces.values())


@given(st.lists(st.integers(1, 4), max_size=3), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_both_pairs_are_their_layers_one_after_the_other(places: list[int], width: int, out: int, biased: bool) -> None:
    norm, linear = pair(width, out, biased=biased)
    x = torch.randn(*places, width, dtype=torch.float64)
    for run, plain, layers in (
        (lambda own: norm_linear(own, norm, linear), lambda own: linear(norm(own)), (norm, linear)),
        (lambda own: gelu_linear(own, linear), lambda own: linear(F.gelu(own)), (linear,)),
    ):
        for found, expected in zip(outcome(run, x, *layers), outcome(plain, x, *layers), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-8)


def test_gradcheck() -> None:
    norm, linear = pair(4, 3)
    x = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda own: norm_linear(own, norm, linear), x)
    assert torch.autograd.gradcheck(lambda own: gelu_linear(own, linear), x)


def test_the_output_of_norm_and_gelu_is_not_kept() -> None:
    norm, linear = pair(16, 48, dtype=torch.float32)
    back = nn.Linear(48, 16)
    x = torch.randn(8, 20, 16, requires_grad=True)
    rows = x.numel() // 16
    assert kept(lambda own: norm_linear(own, norm, linear), x, norm, linear) == x.numel() + 2 * rows
    assert kept(lambda own: linear(norm(own)), x, norm, linear) == 2 * x.numel() + 2 * rows
    hidden = torch.randn(8, 20, 48, requires_grad=True)
    assert kept(lambda own: gelu_linear(own, back), hidden, back) == hidden.numel()
    assert kept(lambda own: back(F.gelu(own)), hidden, back) == 2 * hidden.numel()


HOOKS = ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook", "register_full_backward_pre_hook"]


@pytest.mark.parametrize("hook", HOOKS)
def test_layers_with_hooks_are_called(hook: str) -> None:
    norm, linear = pair(4, 3)
    back, seen = nn.Linear(3, 4).double(), []
    for layer in (norm, linear, back):
        getattr(layer, hook)(lambda layer, *_: seen.append(layer))
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    gelu_linear(norm_linear(x, norm, linear), back).sum().backward()
    assert set(seen) == {norm, linear, back}


def test_hooks_on_all_modules_see_each_layer() -> None:
    norm, linear = pair(4, 3)
    seen: list[nn.Module] = []
    handle = nn.modules.module.register_module_forward_hook(lambda layer, *_: seen.append(layer))
    try:
        norm_linear(torch.randn(2, 4, dtype=torch.float64, requires_grad=True), norm, linear)
    finally:
        handle.remove()
    assert seen == [norm, linear]


def test_a_layer_in_a_linear_layers_place_is_called() -> None:
    class Adapted(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in the class above
            return super().forward(input) + 1

    norm, _ = pair(4, 3)
    linear = Adapted(4, 3).double()
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(norm_linear(x, norm, linear), linear(norm(x)))
    torch.testing.assert_close(gelu_linear(x, linear), linear(F.gelu(x)))
    patched = nn.Linear(4, 3).double()
    patched.forward = lambda tokens: nn.Linear.forward(patched, tokens) + 1
    torch.testing.assert_close(norm_linear(x, norm, patched), patched(norm(x)))
    torch.testing.assert_close(norm_linear(x, bare := nn.LayerNorm(4, elementwise_affine=False), linear), linear(bare(x)))


def test_frozen_weights_get_no_gradient_and_hand_it_on() -> None:
    norm, linear = pair(4, 3)
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    expected = outcome(lambda own: linear(norm(own)), x)
    norm.requires_grad_(requires_grad=False)
    linear.requires_grad_(requires_grad=False)
    torch.testing.assert_close(outcome(lambda own: norm_linear(own, norm, linear), x), expected)
    linear.bias.requires_grad_()
    y = norm_linear(x.requires_grad_(), norm, linear)
    to_x, *to_weights = y.grad_fn.apply(torch.ones_like(y))
    assert to_x.shape == x.shape
    assert [gradient is None for gradient in to_weights] == [True, True, True, True, False]  # gain, shift, eps, weight, bias


def test_autocast_trains_in_its_own_format() -> None:
    norm, linear = pair(8, 24, dtype=torch.float32)
    back = nn.Linear(24, 8)

    def run(own: Tensor) -> Tensor:
        return gelu_linear(norm_linear(own, norm, linear), back)

    def plain(own: Tensor) -> Tensor:
        return back(F.gelu(linear(norm(own))))

    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(2, 7, 8, dtype=dtype)
        with torch.autocast("cpu", torch.bfloat16):
            found, expected = (outcome(form, x, norm, linear, back) for form in (run, plain))
        assert [tensor.dtype for tensor in found] == [torch.bfloat16, dtype, *[torch.float32] * 6]
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=0.01 * float(other.abs().max()), rtol=0.02)


def test_under_autocast_a_map_of_16_bits_is_kept_as_it_is() -> None:
    norm, linear = pair(16, 48, dtype=torch.float32)
    x = torch.randn(8, 20, 16, dtype=torch.bfloat16, requires_grad=True)
    found: list[torch.dtype] = []

    def look(tensor: Tensor) -> Tensor:
        found.extend([tensor.dtype] if tensor.shape == x.shape else [])
        return tensor

    with torch.autocast("cpu", torch.bfloat16), torch.autograd.graph.saved_tensors_hooks(look, lambda tensor: tensor):
        norm_linear(x, norm, linear)
    assert found == [torch.bfloat16]


def test_autocast_leaves_float64_alone() -> None:
    norm, linear = pair(4, 3)
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(norm_linear(x, norm, linear), linear(norm(x)), atol=0, rtol=0)


def test_in_evaluation_gradients_can_be_differentiated_once_more() -> None:
    norm, linear = (layer.eval() for layer in pair(4, 3))
    back = nn.Linear(3, 2).double().eval()
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda own: gelu_linear(norm_linear(own, norm, linear), back), x)


def test_a_compiler_sees_the_layers() -> None:
    norm, linear = pair(4, 3)
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    back = nn.Linear(3, 2).double()
    compiled = torch.compile(lambda own: gelu_linear(norm_linear(own, norm, linear), back), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), back(F.gelu(linear(norm(x)))))


@pytest.mark.parametrize("inner_drop", [0.0, 0.3])
def test_mlp_is_its_equation_with_dropout_after_gelu_and_at_the_end(inner_drop: float) -> None:
    norm, _ = pair(8, 1)
    mlp = Mlp(8, 20, inner_drop=inner_drop, drop=0.2).double()
    x = torch.randn(3, 5, 8, dtype=torch.float64)

    def written_out(own: Tensor) -> Tensor:
        return mlp.drop(mlp.fc2(mlp.inner_drop(F.gelu(mlp.fc1(norm(own))))))

    def seeded(run: Run) -> list[Tensor]:
        torch.manual_seed(3)
        return outcome(run, x, norm, mlp)

    torch.testing.assert_close(seeded(lambda own: mlp(own, norm)), seeded(written_out), atol=1e-10, rtol=1e-8)
    torch.testing.assert_close(mlp.eval()(x, norm), written_out(x), atol=1e-12, rtol=1e-10)
    mlp.inner_drop.train()
    assert torch.equal(mlp(x, norm), mlp(x, norm)) == (inner_drop == 0)


def test_all_is_dropped_at_rate_one() -> None:
    norm, _ = pair(8, 1, dtype=torch.float32)
    mlp = Mlp(8, 20, inner_drop=1.0)
    x = torch.randn(2, 8, requires_grad=True)
    torch.testing.assert_close(mlp(x, norm), mlp.fc2.bias.expand(2, 8))
    assert torch.equal(Mlp(8, 20, drop=1.0)(x, norm), torch.zeros(2, 8))
