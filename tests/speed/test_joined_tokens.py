"""Native attention is softmax attention; joined transformer blocks give what their layers give, and step aside where they are not meant."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import foveate
from foveate.layers.mlp import Mlp
from foveate.models.t2t_vit import Attention, Block
from foveate.speed.folding import fold_norm
from foveate.speed.joined.blocks import filled_up
from foveate.speed.joined.token_blocks import JoinedTokenBlock
from foveate.speed.native import token_block as native_token_block
from foveate.speed.native import tokens as native_tokens
from foveate.speed.native.tokens import activate, add_norm, attend, can_join, norm
from joined_modules import joined_copy, random_map

pytestmark = pytest.mark.skipif(not can_join(torch.float32), reason="no C++ compiler, or PyTorch without GNU OpenMP")


def softmax_attention(qkv: Tensor, heads: int, scale: float) -> Tensor:
    """As the equation has it, in float64."""
    q, k, v = qkv.double().unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    return ((scale * q @ k.transpose(-1, -2)).softmax(dim=-1) @ v).transpose(1, 2).flatten(2)


SHAPES = [(1, 1, 1, 1), (2, 5, 3, 12), (3, 197, 2, 64), (2, 50, 2, 33), (1, 785, 3, 64), (2, 48, 1, 16), (1, 97, 2, 80), (1, 49, 1, 200)]


@pytest.mark.parametrize(("pictures", "tokens", "heads", "width"), SHAPES)
def test_native_attention_is_softmax_attention(pictures: int, tokens: int, heads: int, width: int) -> None:
    qkv, bias = random_map(pictures, tokens, 3 * heads * width), random_map(3, heads, width, seed=1)
    expected = softmax_attention(qkv + bias.flatten(), heads, 0.3)
    torch.testing.assert_close(attend(qkv, heads, filled_up(bias), 0.3).double(), expected, atol=2e-5, rtol=2e-5)
    half = qkv.bfloat16()
    expected = softmax_attention(half + bias.double().flatten(), heads, 0.3)
    torch.testing.assert_close(attend(half, heads, filled_up(bias), 0.3).double(), expected, atol=0.02, rtol=0.01)


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_queries_are_shared_out_among_threads(threads: int) -> None:
    qkv, before = random_map(1, 500, 3 * 64), torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = attend(qkv, 1, torch.zeros(3, 1, 64), 0.125)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found.double(), softmax_attention(qkv, 1, 0.125), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [1e-30, 30.0, 1e4, 1e18])
def test_attention_holds_at_any_magnitude(size: float) -> None:
    """Where products overflow to infinity PyTorch's attention is no number either."""
    qkv = random_map(1, 70, 3 * 32)
    qkv[..., :64] *= size
    qkv[..., 64:] = random_map(1, 70, 32, seed=2)
    found, expected = attend(qkv, 1, torch.zeros(3, 1, 32), 1.0), softmax_attention(qkv, 1, 1.0)
    torch.testing.assert_close(found.double(), expected, atol=1e-4 + 1e-7 * size if size < 1e3 else 0.5, rtol=0.05)
    assert found.isfinite().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_stays_none(value: float) -> None:
    qkv = random_map(1, 20, 3 * 16)
    qkv[0, 3, 5] = value
    q, k, v = qkv.unflatten(-1, (3, 1, -1)).permute(2, 0, 3, 1, 4)
    expected = F.scaled_dot_product_attention(q, k, v)[:, 0]
    assert torch.equal(attend(qkv, 1, torch.zeros(3, 1, 16), 0.25).isfinite(), expected.isfinite())


@pytest.mark.parametrize("channels", [1, 16, 33, 384])
def test_norms_sums_and_activations(channels: int) -> None:
    x, product, hidden = (random_map(3, 7, channels, seed=seed) for seed in range(3))
    bias, later = random_map(channels, seed=3), random_map(channels, seed=4)
    total = x.double() + product + bias
    torch.testing.assert_close(norm(x, 1e-5, torch.float32).double(), F.layer_norm(x.double(), (channels,)), atol=1e-5, rtol=1e-5)
    half = product.bfloat16()
    for given, tolerance in ((product, 1e-5), (half, 0.02)):
        y, normal = add_norm(x, given, (filled_up(bias), filled_up(later)), 1e-5)
        assert (y.dtype, normal.dtype, y is given) == (torch.float32, given.dtype, given is product)
        torch.testing.assert_close(normal.double(), F.layer_norm(total, (channels,)), atol=tolerance, rtol=tolerance)
        torch.testing.assert_close(y.double(), total + later, atol=tolerance, rtol=tolerance)
    expected = F.gelu(hidden.double() + bias)
    activate(hidden, filled_up(bias))
    torch.testing.assert_close(hidden.double(), expected, atol=2e-6, rtol=2e-6)


def make_block(width: int = 48, heads: int = 3, hidden: int = 100) -> Any:
    """A block in evaluation with random weights everywhere, its norms folded into the layers behind them."""
    block: Any = Block(width, Attention(width, heads), Mlp(width, hidden, inner_drop=0.1, drop=0.1), 0.1)
    generator = torch.Generator().manual_seed(width)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    fold_norm(block.norm1, block.attn.qkv)
    fold_norm(block.norm2, block.mlp.fc1)
    block.norm1.eps, block.norm2.eps = 1e-3, 1e-2
    return block.eval().requires_grad_(False)


joined = partial(joined_copy, JoinedTokenBlock)


@pytest.mark.parametrize("form", [{}, {"width": 64, "heads": 1, "hidden": 192}, {"width": 36, "heads": 3, "hidden": 37}], ids=str)
def test_a_joined_block_is_the_block(form: dict[str, int]) -> None:
    block = make_block(**form)
    fast, width = joined(block), block.attn.proj.in_features
    for seed, (pictures, tokens) in enumerate([(1, 1), (2, 17), (3, 65), (1, 200)]):
        x = random_map(pictures, tokens, width, seed=seed)
        before = x.clone()
        with torch.inference_mode():
            torch.testing.assert_close(fast(x), block(x.clone()), atol=2e-5, rtol=2e-5)
            with torch.autocast("cpu", torch.bfloat16):
                found, by_layers = fast(x), block(x.clone())
        assert torch.equal(x, before)
        exact = copy.deepcopy(block).double()(x.double())
        assert found.dtype == by_layers.dtype == torch.float32
        assert (found - exact).abs().max() <= 2 * (by_layers - exact).abs().max() + 0.01


@pytest.mark.parametrize("form", [{}, {"width": 36, "heads": 3, "hidden": 37}, {"width": 16, "heads": 1, "hidden": 5}], ids=str)
@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_tokens_are_shared_out_among_threads_in_blocks(form: dict[str, int], threads: int) -> None:
    block, before = make_block(**form), torch.get_num_threads()
    fast, width = joined(block), block.attn.proj.in_features
    try:
        for pictures, tokens in ((1, 15), (1, 16), (1, 130), (3, 65), (5, 63), (17, 1)):
            x = random_map(pictures, tokens, width, seed=tokens)
            torch.set_num_threads(threads)
            found = fast(x)
            torch.set_num_threads(1)
            torch.testing.assert_close(found, block(x), atol=2e-5, rtol=2e-5)
            assert torch.equal(found, fast(x))
    finally:
        torch.set_num_threads(before)


def test_weights_may_lie_in_memory_in_any_order() -> None:
    block, x = make_block(), random_map(2, 19, 48)
    expected = block(x)
    for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
        layer.weight = nn.Parameter(layer.weight.t().contiguous().t(), requires_grad=False)
    fast, turned = joined(block), x.transpose(0, 1).contiguous().transpose(0, 1)
    torch.testing.assert_close(fast(turned), expected, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(fast.first_token(turned), expected[:, :1], atol=2e-5, rtol=2e-5)


def test_weights_of_several_formats_are_refused_as_by_the_layers() -> None:
    fast = joined(make_block())
    fast.mlp.bfloat16()
    with pytest.raises(RuntimeError, match="dtype"):
        fast(random_map(2, 9, 48))


def test_negated_weights_are_read_as_such() -> None:
    block, x = make_block(), random_map(2, 9, 48)
    expected = block(x)
    block.mlp.fc1.weight = nn.Parameter(torch._neg_view(-block.mlp.fc1.weight), requires_grad=False)
    torch.testing.assert_close(joined(block)(x), expected, atol=2e-5, rtol=2e-5)


def test_the_first_token_alone_is_the_blocks_first() -> None:
    for form in ({}, {"width": 36, "heads": 3, "hidden": 37}):
        block = make_block(**form)
        fast = joined(block)
        for pictures, tokens in ((1, 1), (2, 17), (3, 197)):
            x = random_map(pictures, tokens, block.attn.proj.in_features, seed=tokens)
            torch.testing.assert_close(fast.first_token(x), block(x)[:, :1], atol=2e-5, rtol=2e-5)
            with torch.autocast("cpu", torch.bfloat16):
                assert torch.equal(fast.first_token(x), fast(x)[:, :1])
        fast.register_forward_hook(lambda _, __, y: 2 * y)
        assert torch.equal(fast.first_token(x), fast(x)[:, :1])


@pytest.mark.parametrize("name", ["t2t_vit_7", "t2t_vit_t_14", "t2t_vit_c_14", "t2t_vit_14_resnext", "t2t_vit_14_wide"])
def test_whole_models_at_several_sizes(name: str) -> None:
    model = foveate.create_model(name, depth=2, num_classes=5).eval()
    fast = foveate.optimize(model)
    assert fast.optimized[-1].startswith("2 blocks joined: native attention, norms and products")
    assert fast.state_dict().keys() == foveate.optimize(model, compile=False).state_dict().keys()
    with torch.inference_mode():
        for x in (torch.randn(2, 3, 64, 96), torch.randn(1, 3, 50, 37), torch.randn(1, 3, 224, 224)):
            torch.testing.assert_close(fast(x), model(x), atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(copy.deepcopy(fast)(x), fast(x), atol=0, rtol=0)
    assert foveate.optimize(fast).optimized[-1] == fast.optimized[-1]


def test_a_whole_model_in_bfloat16_is_no_worse_than_by_its_layers() -> None:
    model = foveate.create_model("t2t_vit_7", depth=4, num_classes=5).eval()
    fast, x = foveate.optimize(model), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        exact = model.forward_features(x)
        with torch.autocast("cpu", torch.bfloat16):
            found, by_layers = fast.forward_features(x), model.forward_features(x)
    assert found.dtype == by_layers.dtype
    assert (found - exact).norm() < 1.2 * (by_layers - exact).norm()


def test_under_autocast_the_products_are_those_of_its_format(monkeypatch: pytest.MonkeyPatch) -> None:
    fast, formats = joined(make_block()), []

    def noted(qkv: Tensor, *given: Any) -> Tensor:
        formats.append(qkv.dtype)
        return attend(qkv, *given)

    monkeypatch.setattr(native_tokens, "attend", noted)
    x = random_map(2, 9, 48)
    fast(x)
    with torch.autocast("cpu", torch.bfloat16):
        fast(x)
    fast.bfloat16()(x.bfloat16())
    assert formats == [torch.bfloat16, torch.bfloat16]


def test_an_optimized_model_may_be_changed_and_optimized_again() -> None:
    once = foveate.optimize(foveate.create_model("t2t_vit_7", depth=2, num_classes=5).eval())
    once.blocks[0].mlp.fc2 = nn.Sequential(once.blocks[0].mlp.fc2)
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(foveate.optimize(once)(x), once(x), atol=1e-4, rtol=1e-4)
    for dtype in (torch.float64, torch.float16):
        assert foveate.optimize(copy.deepcopy(once).to(dtype))(x.to(dtype)).dtype == dtype


def test_blocks_with_other_attention_are_left_alone() -> None:
    for name in ("t2t_vit_14_se", "t2t_vit_16_ghost"):
        model = foveate.optimize(foveate.create_model(name, depth=1).eval(), compile=False)
        assert not any(JoinedTokenBlock.fits(module) for module in model.modules())


def test_weights_that_change_are_taken_up() -> None:
    block, other = make_block(), make_block()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    fast, x = joined(block), random_map(2, 9, 48)
    fast(x)
    fast.load_state_dict(other.state_dict())
    torch.testing.assert_close(fast(x), other(x.clone()), atol=2e-5, rtol=2e-5)


class Doubling(nn.Linear):
    """A linear layer that does more than its weights say."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in the class above
        return 2 * super().forward(input)


def adapted(block: Any) -> None:
    weights = block.attn.qkv.state_dict()
    block.attn.qkv = Doubling(48, 144).requires_grad_(False)
    block.attn.qkv.load_state_dict(weights)


def hooked(block: Any) -> None:
    block.mlp.fc2.register_forward_hook(lambda module, given, y: y + 1)


def with_dropout(block: Any) -> None:
    block.mlp.drop.train()


def in_float64(block: Any) -> None:
    block.double()


def learning(block: Any) -> None:
    block.requires_grad_(True)


@pytest.mark.parametrize("change", [adapted, hooked, with_dropout, in_float64, learning])
def test_what_the_native_code_is_not_made_for_goes_through_the_layers(
    change: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    block = make_block()
    fast = joined(block)
    change(block)
    change(fast)
    monkeypatch.setattr(native_token_block, "ask", None)  # would fail
    monkeypatch.setattr(native_tokens, "attend", None)  # so would this
    x = random_map(2, 9, 48).to(block.attn.proj.weight.dtype)
    found = []
    for model in (fast, block):
        torch.manual_seed(0)
        found.append(model(x.clone()))
    assert torch.equal(*found)
    assert found[0].requires_grad == (change is learning)


def test_counters_and_exporters_see_every_layer() -> None:
    fast, x = joined(make_block()), random_map(2, 9, 48)
    with FlopCounterMode(display=False) as counter:
        fast(x)
    assert counter.get_total_flops() > 2 * 2 * 9 * 48 * (3 * 48 + 48 + 100 + 100) - 1
    exported = torch.export.export(fast, (x,)).module()
    torch.testing.assert_close(exported(x), fast(x), atol=2e-5, rtol=2e-5)
    with pytest.raises((RuntimeError, IndexError, ValueError)):
        fast(torch.zeros(2, 9, 32))
