import math

import pytest
import torch

from foveate.layers.token_layers import TokenPerformer, TokenTransformer, orthogonal_features, performer_attention


def published_formula(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    def phi(x: torch.Tensor) -> torch.Tensor:
        return torch.exp(x @ w.T - x.square().sum(-1, keepdim=True) / 2) / math.sqrt(len(w))

    return phi(q) @ (phi(k).transpose(1, 2) @ v) / (phi(q) @ phi(k).sum(1)[..., None] + 1e-8)


@pytest.mark.parametrize("scale", [0.01, 0.3, 0.6, 1.0, 2.0])
def test_equals_the_published_formula_with_its_epsilon(scale: float) -> None:
    torch.manual_seed(0)
    q, k, v = (scale * torch.randn(2, 50, 64, dtype=torch.float64) for _ in range(3))
    w = orthogonal_features(32, 64).double()
    torch.testing.assert_close(performer_attention(q, k, v, w), published_formula(q, k, v, w), atol=1e-12, rtol=1e-8)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 30.0, 1e4])
def test_values_and_gradients_stay_finite_in_float32(scale: float) -> None:
    torch.manual_seed(0)
    q, k, v = ((scale * torch.randn(2, 40, 64)).requires_grad_() for _ in range(3))
    y = performer_attention(q, k, v, orthogonal_features(32, 64))
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert all(torch.isfinite(t.grad).all() for t in (q, k, v))


def test_gradcheck() -> None:
    inputs = [torch.randn(1, 4, 6, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    w = orthogonal_features(4, 6).double()
    assert torch.autograd.gradcheck(lambda q, k, v: performer_attention(q, k, v, w), inputs)


def test_random_features_are_orthogonal_rows() -> None:
    w = orthogonal_features(32, 64)
    torch.testing.assert_close(w @ w.T, 32 * torch.eye(32), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("layer", [TokenPerformer, TokenTransformer])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_left(layer: type, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    module = layer(147, 64, 7, 4)
    x = 100 * torch.randn(1, 3, 32, 32)
    with torch.autocast("cpu", dtype):
        y = module(x)
    y.float().square().mean().backward()
    assert y.shape == (1, 64, 64)
    assert torch.isfinite(y).all()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.requires_grad)


def test_softmax_scale_is_that_of_the_input_width() -> None:
    layer = TokenTransformer(147, 64, 7, 4).double().eval()
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    tokens = layer.norm1(torch.nn.functional.unfold(x, 7, padding=2, stride=4).transpose(1, 2))
    q, k, v = layer.qkv(tokens).chunk(3, -1)
    attended = v + layer.proj(torch.softmax(q @ k.transpose(1, 2) * 147**-0.5, -1) @ v)
    torch.testing.assert_close(layer(x), attended + layer.mlp(attended, layer.norm2), atol=1e-10, rtol=1e-8)
