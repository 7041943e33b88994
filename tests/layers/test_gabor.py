import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from foveate.layers.gabor import LearnableGaborFilter, frequency_of, gabor_kernels, released_order, sharpness_of


def random_parameters(filters: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(filters, dtype=torch.float64, generator=generator) for _ in range(8)]


def test_textbook_form_in_wavelength_and_bandwidth() -> None:
    wavelength, theta, psi, gamma, sigma = (torch.tensor([v], dtype=torch.float64) for v in (3.7, 0.6, 0.3, 0.5, 1.9))
    kernels = gabor_kernels(frequency_of(wavelength), theta, psi, gamma, sharpness_of(sigma), 7)
    for row in range(7):
        for column in range(7):
            x, y = column - 3, -(row - 3)  # y upwards, as in the textbook
            along = x * math.cos(0.6) + y * math.sin(0.6)
            across = -x * math.sin(0.6) + y * math.cos(0.6)
            expected = math.exp(-(along**2 + 0.25 * across**2) / (2 * 1.9**2)) * math.cos(2 * math.pi * along / 3.7 + 0.3)
            assert kernels[0, row, column].item() == pytest.approx(expected, abs=1e-12)


def test_orientation_turns_counter_clockwise_as_seen() -> None:
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    kernel = gabor_kernels(2 * one, math.pi / 4 * one, zero, one, 0.3 * one, 5)[0]
    # The wave runs from bottom left to top right, so its crests, along which nothing changes but the envelope, run the other way.
    crest, wave = torch.diagonal(kernel), torch.diagonal(kernel.flip(1))
    assert (crest > 0).all()
    assert (wave < 0).any()


def test_gradients_have_the_closed_forms() -> None:
    omega, theta, psi, gamma, s, alpha, tx, ty = (p.requires_grad_() for p in random_parameters(1))
    steps = torch.arange(3, dtype=torch.float64) - 1
    y, x = steps[:, None], steps[None, :]
    xr = x * theta.cos() - y * theta.sin() + tx
    yr = x * theta.sin() + y * theta.cos() + ty
    envelope = torch.exp(-(s**2) * (xr**2 + gamma**2 * yr**2))
    kernel = alpha * envelope * torch.cos(omega * xr + psi)
    sine = torch.sin(omega * xr + psi)
    closed = {
        "alpha": (alpha, envelope * torch.cos(omega * xr + psi)),
        "omega": (omega, -alpha * envelope * xr * sine),
        "psi": (psi, -alpha * envelope * sine),
        "s": (s, -2 * s * (xr**2 + gamma**2 * yr**2) * kernel),
        "gamma": (gamma, -2 * s**2 * gamma * yr**2 * kernel),
    }
    ours = gabor_kernels(omega, theta, psi, gamma, s, 3, alpha, tx, ty)
    for name, (parameter, expected) in closed.items():
        gradient = torch.stack([torch.autograd.grad(value, parameter, retain_graph=True)[0][0] for value in ours.flatten()])
        torch.testing.assert_close(gradient, expected.flatten().detach(), atol=1e-12, rtol=1e-9, msg=name)


@pytest.mark.parametrize("size", [1, 3, 5, 9])
def test_gradcheck(size: int) -> None:
    parameters = [p.requires_grad_() for p in random_parameters(3, seed=size)]
    assert torch.autograd.gradcheck(lambda *p: gabor_kernels(*p[:5], size, *p[5:]), parameters)


@pytest.mark.parametrize("size", [0, 2, 4])
def test_even_sides_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="odd"):
        gabor_kernels(*random_parameters(1)[:5], size)


@settings(max_examples=20, deadline=None)
@given(
    channels=st.integers(1, 9), size=st.sampled_from([1, 3, 5, 7]), height=st.integers(1, 9), width=st.integers(1, 9), shared=st.booleans()
)
def test_baked_filter_is_the_same_function(channels: int, size: int, height: int, width: int, shared: bool) -> None:
    layer = LearnableGaborFilter(channels, shared=shared, kernel_size=size, start="random")
    x = torch.randn(2, height, width, channels)
    norm = nn.LayerNorm(channels)
    assert layer(x, norm).shape == x.shape
    torch.testing.assert_close(layer.bake()(x, norm), layer(x, norm), atol=0, rtol=0)


def test_shared_filter_is_the_bank_of_equal_filters() -> None:
    shared = LearnableGaborFilter(4, shared=True, start="random")
    bank = LearnableGaborFilter(4)
    bank.load_state_dict({name: value.expand(4) for name, value in shared.state_dict().items()})
    x = torch.randn(1, 5, 6, 4)
    torch.testing.assert_close(bank(x, nn.Identity()), shared(x, nn.Identity()))


def test_spread_start_covers_half_a_turn_and_the_kernel() -> None:
    layer = LearnableGaborFilter(64, kernel_size=7)
    assert layer.wavelength.min().item() == pytest.approx(2, rel=1e-5)
    assert layer.wavelength.max().item() == pytest.approx(7, rel=1e-5)
    turns = layer.orientation.detach().unique()
    assert len(turns) == 16
    torch.testing.assert_close(turns.diff(), torch.full((15,), math.pi / 16), atol=1e-6, rtol=0)
    assert len(torch.stack((layer.wavelength, layer.orientation), 1).detach().unique(dim=0)) == 64


def test_released_order_reads_channels_by_columns() -> None:
    x_bchw = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    authors = x_bchw.transpose(1, 2).reshape(2, 20, 3)
    ours = released_order(x_bchw.permute(0, 2, 3, 1)).reshape(2, 20, 3)
    assert torch.equal(ours, authors)
    assert not torch.equal(ours, x_bchw.flatten(2).transpose(1, 2))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("biased", [True, False])
def test_training_keeps_less_and_has_the_gradients_of_its_parts(shared: bool, biased: bool) -> None:
    torch.manual_seed(1)
    layer = LearnableGaborFilter(6, shared=shared, kernel_size=5, start="random").double()
    norm = nn.LayerNorm(6, eps=1e-6, bias=biased).double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    nn.init.normal_(layer.bias, std=0.1)
    x = torch.randn(2, 8, 9, 6, dtype=torch.float64)

    def outcome(run: Callable[[Tensor], Tensor]) -> tuple[list[Tensor], int]:
        """Output and gradients, and the bytes that are kept of tensors with a batch."""
        own, kept = x.clone().requires_grad_(), {}

        def keep(tensor: Tensor) -> Tensor:
            if tensor.shape[:1] == (2,):
                kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            y = run(own)
        return [y.detach(), *torch.autograd.grad(y.square().sum(), [own, *layer.parameters(), *norm.parameters()])], sum(kept.values())

    found, few = outcome(lambda own: layer(own, norm))
    expected, many = outcome(lambda own: layer(norm(own), nn.Identity()))
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-8)
    assert (found[0] == 0).any() and (found[0] > 0).any()
    assert few == x.nbytes + x.numel() + 2 * x.nbytes // 6  # the map, a byte for ReLU, mean and deviation
    assert many == 3 * x.nbytes + 2 * x.nbytes // 6
