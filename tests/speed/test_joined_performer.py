"""Native token layers are the layers, performer attention included, and where they step aside."""

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foveate
from foveate.layers.token_layers import TokenPerformer, orthogonal_features, performer_attention
from foveate.speed.folding import fold_norm
from foveate.speed.joined import token_layers as joined_performer
from foveate.speed.joined.token_layers import JoinedTokenPerformer
from foveate.speed.native.performer import can_join, perform
from foveate.speed.native.token_layer import Split, token_layer
from joined_modules import joined_copy, random_map

pytestmark = pytest.mark.skipif(not can_join(), reason="no C++ compiler, or PyTorch without GNU OpenMP")


def assert_performs(response: Tensor, scales: Tensor, constant: Tensor, features: Tensor, tolerance: float = 2e-5) -> None:
    """`perform` against the layers' attention in float64."""
    k, q, v = (response.double() * scales.double()[..., None] + constant).chunk(3, dim=-1)
    expected = performer_attention(q, k, v, features.double())
    y, given = perform(response, scales, constant, features.t().contiguous())
    torch.testing.assert_close(given.double(), v, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(y.double(), expected, atol=tolerance * float(v.abs().max()), rtol=1e-4)


@pytest.mark.parametrize(("pictures", "tokens", "width", "count"), [(1, 1, 16, 16), (2, 48, 64, 32), (3, 49, 64, 32), (1, 1000, 32, 48)])
def test_native_attention_is_performer_attention(pictures: int, tokens: int, width: int, count: int) -> None:
    response, scales = random_map(pictures, tokens, 3 * width), random_map(pictures, tokens, seed=1).abs()
    features = orthogonal_features(count, width, torch.Generator().manual_seed(0))
    assert_performs(response, scales, random_map(3 * width, seed=2), features)


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_tokens_are_shared_out_among_threads(threads: int) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert_performs(random_map(1, 700, 96), torch.ones(1, 700), torch.zeros(96), random_map(16, 32, seed=3))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("size", [1e-3, 3.0, 8.0])
def test_attention_is_stable_at_any_magnitude(size: float) -> None:
    """Exponents from nothing to the hundreds, growing from token to token, so that what was gathered is scaled anew."""
    response = size * random_map(2, 150, 96) * torch.linspace(0.2, 1, 150)[:, None]
    assert_performs(response, torch.ones(2, 150), torch.zeros(96), random_map(16, 32, seed=3), tolerance=2e-4)


def make_layer(channels: int = 5, kernel: int = 3, stride: int = 2, features: int = 16) -> Any:
    """A layer in evaluation with random weights everywhere, its second norm folded."""
    layer = TokenPerformer(channels * kernel**2, 32, kernel, stride, features=features)
    with torch.no_grad():
        for index, parameter in enumerate(layer.parameters()):
            parameter.copy_(0.3 * random_map(*parameter.shape, seed=index))
    fold_norm(layer.norm2, layer.mlp.fc1)
    layer.norm1.eps, layer.norm2.eps = 1e-3, 1e-2
    return layer.eval().requires_grad_(False)


joined = partial(joined_copy, JoinedTokenPerformer)


@pytest.mark.parametrize("shape", [(1, 5, 4, 4), (2, 5, 15, 22), (3, 5, 40, 40)])
def test_a_joined_layer_is_the_layer(shape: tuple[int, ...]) -> None:
    layer, x = make_layer(), random_map(*shape)
    fast, exact = joined(layer), copy.deepcopy(layer).double()(x.double())
    torch.testing.assert_close(fast(x).double(), exact, atol=3e-5, rtol=3e-5)
    with torch.autocast("cpu", torch.bfloat16):
        found = fast(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, atol=3e-5, rtol=3e-5)


FORMS = [((2, 3, 32, 20), 7, 4), ((1, 64, 9, 14), 3, 2), ((2, 17, 5, 5), 3, 1), ((1, 1, 1, 1), 7, 2), ((4, 3, 60, 61), 7, 4)]


@pytest.mark.parametrize("threads", [1, 2, 16])
@pytest.mark.parametrize(("shape", "kernel", "stride"), FORMS)
def test_patches_of_any_side_are_shared_out_among_threads(shape: tuple[int, ...], kernel: int, stride: int, threads: int) -> None:
    layer: Any = make_layer(shape[1], kernel, stride, features=7)
    x, before = random_map(*shape), torch.get_num_threads()
    exact = copy.deepcopy(layer).double()(x.double())
    split, eps = Split(kernel, stride), (layer.norm1.eps, layer.norm2.eps)
    try:
        torch.set_num_threads(threads)
        found = token_layer(x.permute(0, 2, 3, 1).contiguous(), split, JoinedTokenPerformer.pack(layer), eps)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found.double(), exact, atol=5e-5, rtol=5e-5)


@pytest.mark.parametrize("size", [1e-3, 1.0, 3.0])
def test_a_layer_is_stable_at_any_magnitude(size: float) -> None:
    """Exponents from nothing to the hundreds, growing down the picture, so that what was gathered is scaled anew."""
    layer = make_layer()
    layer.norm1.weight.mul_(size * 4)
    x = random_map(2, 5, 40, 40) * torch.linspace(0.2, 1, 40)[:, None]
    exact = copy.deepcopy(layer).double()(x.double())
    torch.testing.assert_close(joined(layer)(x).double(), exact, atol=3e-4 * float(exact.abs().max()), rtol=1e-3)


@pytest.mark.parametrize("shape", [(1, 5, 2, 40), (1, 5, 40, 1), (2, 5, 2, 2)])
def test_a_map_smaller_than_a_patch_is_refused_as_by_the_layer(shape: tuple[int, ...]) -> None:
    with pytest.raises(RuntimeError, match="Kernel size"):
        joined(make_layer(5, 7, 4))(random_map(*shape))


def test_weights_that_change_are_taken_up() -> None:
    layer, x = make_layer(), random_map(2, 5, 8, 9)
    fast = joined(layer)
    fast(x)
    for model in (fast, layer):
        model.kqv.bias.add_(0.5)
        model.random_features.mul_(0.9)
    torch.testing.assert_close(fast(x), layer(x), atol=3e-5, rtol=3e-5)


class Doubled(nn.Module):
    """Another MLP, without the parts of ours."""

    def forward(self, x: Tensor, norm: nn.Module) -> Tensor:
        return 2 * norm(x)


def test_a_replaced_mlp_is_called() -> None:
    layer, x = make_layer(), random_map(2, 5, 8, 9)
    fast = joined(layer)
    fast.mlp, layer.mlp = Doubled().eval(), Doubled().eval()
    assert torch.equal(fast(x), layer(x))
    assert not JoinedTokenPerformer.fits(layer)


def test_a_bias_of_another_length_is_taken_as_by_the_layer() -> None:
    layer, x = make_layer(), random_map(2, 5, 8, 9)
    fast = joined(layer)
    for model in (fast, layer):
        model.mlp.fc2.bias = nn.Parameter(torch.ones(1), requires_grad=False)  # broadcast
    assert torch.equal(fast(x), layer(x))


def test_copies_views_and_what_is_no_number() -> None:
    layer, wide = make_layer(), random_map(2, 5, 8, 18)
    fast, x = joined(layer), random_map(2, 5, 8, 18)[..., ::2]
    torch.testing.assert_close(copy.deepcopy(fast)(x), layer(x), atol=3e-5, rtol=3e-5)
    wide[0, 2, 3, 4] = float("nan")
    assert torch.equal(fast(wide).isnan(), layer(wide).isnan())


@pytest.mark.parametrize("change", ["hook", "float64", "gradients", "dropout"])
def test_what_the_native_code_is_not_made_for_goes_through_the_layer(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = make_layer(), random_map(2, 5, 8, 9)
    fast, called = joined(layer), []
    monkeypatch.setattr(joined_performer, "token_layer", None)  # would fail
    if change == "hook":
        fast.proj.register_forward_hook(lambda *_: called.append(1))
    elif change == "float64":
        fast, layer, x = fast.double(), layer.double(), x.double()
    elif change == "gradients":
        fast.requires_grad_(True)
    else:
        fast.mlp.drop.train()
    found = fast(x)
    assert torch.equal(found, layer(x)) == (change != "dropout")
    assert bool(called) == (change == "hook")


def test_whole_models_are_joined_with_their_token_layers() -> None:
    model = foveate.create_model("t2t_vit_7", depth=1, num_classes=5).eval()
    fast = foveate.optimize(model)
    assert fast.optimized[-1].split("; ")[1] == "2 token layers joined: native soft split, performer attention and MLP"
    with torch.inference_mode():
        for x in (torch.randn(2, 3, 64, 96), torch.randn(1, 3, 50, 37)):
            for found, expected in zip(fast.forward_intermediates(x)[1], model.forward_intermediates(x)[1], strict=True):
                torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
