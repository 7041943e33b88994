"""Joined blocks give what their layers give, at any size, and step aside where they are not meant."""

import copy
import io
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

import foveate
from foveate.heads.create import create_dense
from foveate.layers.feedforward import MultiPathFeedForward
from foveate.layers.gabor import BakedGaborFilter
from foveate.models.fvit import BionicFocalVisionBlock
from foveate.speed.folding import fold_norm
from foveate.speed.joined import blocks as joining
from foveate.speed.joined.blocks import JoinedBlock
from foveate.speed.native import feed_forward as native_feed_forward
from foveate.speed.native.chains import can_join, filter_groups
from joined_modules import AROUND_BLOCKS, joined_copy, random_map, with_products

pytestmark = pytest.mark.skipif(not can_join(torch.float32), reason="no C++ compiler, or PyTorch without GNU OpenMP")


def make_block(
    width: int = 24, *, side: int = 3, activation: str = "relu", paths: int = 2, untouched: int = 0, hidden: int = 60
) -> nn.Module:
    """A block in evaluation with random weights everywhere, its second norm folded into the feed-forward."""
    filters = BakedGaborFilter(width, side, activation)
    block = BionicFocalVisionBlock(width, filters, MultiPathFeedForward(width, hidden, paths=paths, untouched=untouched, drop=0.1), 0.1)
    generator = torch.Generator().manual_seed(width + side + paths)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    fold_norm(block.norm2, block.ffn.fc1)
    return block.eval().requires_grad_(False)


joined = partial(joined_copy, JoinedBlock)


FORMS = [
    {},
    {"width": 64, "hidden": 192, "paths": 4},
    {"width": 16, "hidden": 48, "paths": 3, "untouched": 1},
    {"width": 40, "hidden": 252, "paths": 4, "untouched": 3},
    {"width": 72, "hidden": 252, "paths": 1},
    {"side": 5, "activation": "gelu"},
    {"side": 7, "activation": "none"},
    {"width": 33, "hidden": 66, "side": 1},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("order", ["raster", "released"])
def test_a_joined_block_is_the_block(form: dict[str, object], order: str) -> None:
    block = make_block(**form)
    block.token_order = order
    fast, width = joined(block), block.position.out_channels
    for number, (pictures, height, length) in enumerate([(1, 1, 1), (2, 3, 5), (3, 14, 14), (1, 33, 20), (5, 7, 2), (3, 20, 19)]):
        x = random_map(pictures, height, length, width, seed=number)
        before = x.clone()
        with torch.inference_mode():
            found, expected = fast(x), block(x.clone())
        assert torch.equal(x, before)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)


def test_pictures_may_be_taken_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    fast, x = joined(make_block()), random_map(5, 6, 7, 24)
    whole, pieces = fast(x), []
    monkeypatch.setattr(joining, "HIDDEN_NUMBERS", 2 * 6 * 7 * 60 + 1)
    monkeypatch.setattr(joining, "filter_groups", lambda hidden, weights: (pieces.append(len(hidden)), filter_groups(hidden, weights)))
    torch.testing.assert_close(fast(x), whole, atol=1e-5, rtol=1e-5)
    assert pieces == [2, 2, 1]


def test_weights_may_lie_in_memory_in_any_order() -> None:
    block, x = make_block(64, hidden=192), random_map(3, 5, 6, 64)
    expected = block(x.clone())
    for layer in (block.ffn.fc1, block.ffn.fc2):
        layer.weight = nn.Parameter(layer.weight.t().contiguous().t(), requires_grad=False)
    torch.testing.assert_close(joined(block)(x), expected, atol=2e-5, rtol=2e-5)


def test_a_map_larger_than_the_cache() -> None:
    block, x = make_block(16, hidden=192, paths=2), random_map(8, 190, 201, 16)
    torch.testing.assert_close(joined(block)(x), block(x.clone()), atol=2e-5, rtol=2e-5)


def test_far_from_zero_the_norms_stay_exact() -> None:
    """72 channels are not whole groups of sixteen: what fills them up must not count in the variance."""
    block = make_block(72, hidden=72)
    block.position.bias.add_(1000)
    exact = copy.deepcopy(block).double()(random_map(1, 9, 9, 72).double())
    deviation = (joined(block)(random_map(1, 9, 9, 72)) - exact).abs().max()
    assert deviation < 2 * (block(random_map(1, 9, 9, 72)) - exact).abs().max() + 1e-4


def test_several_threads_may_call_at_once() -> None:
    fast, maps = joined(make_block(64, hidden=192)), [random_map(2, 30, 14 + index, 64, seed=index) for index in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(fast, maps))
    for x, y in zip(maps, found, strict=True):
        torch.testing.assert_close(y, fast(x), atol=1e-5, rtol=1e-5)


def test_threads_and_pictures_beside_change_nothing() -> None:
    fast, x = joined(make_block(64, hidden=192, paths=4)), random_map(5, 23, 17, 64)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = fast(x)
        torch.set_num_threads(3)
        torch.testing.assert_close(fast(x), alone, atol=1e-5, rtol=1e-5)
    finally:
        torch.set_num_threads(threads)
    for index in range(len(x)):
        torch.testing.assert_close(fast(x[index : index + 1]), alone[index : index + 1], atol=1e-5, rtol=1e-5)


def test_maps_in_another_order_in_memory_are_taken_too() -> None:
    fast, x = joined(make_block()), random_map(2, 24, 9, 6)
    torch.testing.assert_close(fast(x.permute(0, 2, 3, 1)), fast(x.permute(0, 2, 3, 1).contiguous()), atol=0, rtol=0)


def test_gelu_is_within_a_millionth_everywhere() -> None:
    """A feed-forward whose linears and filter are identities leaves GELU alone."""
    block = make_block(16, hidden=16, paths=1)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
        block.ffn.paths[0].weight[:, :, 1, 1] = 1
        block.ffn.fc2.weight.copy_(torch.eye(16))
    values = torch.linspace(-15, 15, 20_000)
    for start in range(0, len(values), 16):
        block.ffn.fc1.bias.copy_(values[start : start + 16])
        found = joined(block)(torch.zeros(1, 1, 1, 16)).flatten()
        torch.testing.assert_close(found.double(), nn.functional.gelu(values[start : start + 16].double()), atol=1e-6, rtol=1e-6)


@pytest.fixture(params=[True, False], ids=["native products", "products of PyTorch's"])
def of_products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Those in bfloat16, whatever this processor is the faster with."""
    with_products(monkeypatch, joining, native_feed_forward, native=request.param)
    return bool(request.param)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS[:2], ids=str)
@pytest.mark.usefixtures("of_products")
def test_what_is_no_number_stays_none(value: float, dtype: torch.dtype, form: dict[str, object]) -> None:
    block = make_block(**form).to(dtype)
    x = random_map(1, 6, 6, block.position.out_channels).to(dtype)
    x[0, 2, 3, 4] = value
    assert torch.equal(joined(block)(x).isfinite(), block(x.clone()).isfinite())


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.usefixtures("of_products")
def test_bfloat16_is_no_worse_than_by_the_layers(form: dict[str, object]) -> None:
    block = make_block(**form)
    fast, x = joined(block), random_map(2, 14, 14, block.position.out_channels)
    exact = block(x.clone())
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        by_layers, found = block(x.clone()), fast(x)
    assert found.dtype == by_layers.dtype == torch.bfloat16
    assert (found - exact).abs().mean() <= (by_layers - exact).abs().mean()
    assert (found - exact).abs().max() < 0.02 * exact.abs().max()
    whole = copy.deepcopy(fast).bfloat16()(x.bfloat16())
    assert (whole - exact).abs().max() < 0.02 * exact.abs().max()


def test_products_in_bfloat16_may_be_native(of_products: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[torch.dtype] = []
    monkeypatch.setattr(native_feed_forward, "feed_forward", lambda normal, *_: taken.append(normal.dtype))
    fast, x = joined(make_block(64, hidden=192)), random_map(2, 5, 5, 64)
    with torch.autocast("cpu", torch.bfloat16):
        fast(x)
    assert taken == [torch.bfloat16] * of_products


@pytest.mark.usefixtures("of_products")
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_and_pictures_beside_change_nothing_in_bfloat16(threads: int) -> None:
    """Five maps of 391 pixels go through whole, picture by picture, or their rest together; one alone counts as few pixels."""
    fast, x, before = joined(make_block(64, hidden=192, paths=4)), random_map(5, 23, 17, 64).bfloat16(), torch.get_num_threads()
    exact = fast(x.float())
    try:
        torch.set_num_threads(threads)
        with torch.autocast("cpu", torch.bfloat16):
            together, alone = fast(x), torch.cat([fast(one) for one in x.split(1)])
    finally:
        torch.set_num_threads(before)
    for found in (together, alone):
        torch.testing.assert_close(found.float(), exact, atol=0.02 * float(exact.abs().max()), rtol=0)
    torch.testing.assert_close(together, alone, atol=0.01 * float(exact.abs().max()), rtol=0)


class Adapter(nn.Linear):
    """A linear layer that does more than its weights say."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in the class above
        return super().forward(input) + 1


def without_chains(monkeypatch: pytest.MonkeyPatch, fast: nn.Module, x: Tensor) -> None:
    """From now on the chains fail, and did not before."""

    def fail(*_: object) -> None:
        raise AssertionError("the chains were called")

    monkeypatch.setattr(joining, "mix", fail)
    with pytest.raises(AssertionError, match="the chains were called"):
        fast(x)


@pytest.mark.parametrize("inner", ["mixer", "drop_path2", "ffn.drop", "norm2", "ffn.paths.1"])
def test_layers_with_hooks_are_called(inner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fast, x, called = joined(make_block()), random_map(2, 5, 5, 24), []
    without_chains(monkeypatch, fast, x)
    fast.get_submodule(inner).register_forward_hook(lambda *_: called.append(1))
    fast(x)
    assert called


@pytest.mark.parametrize("change", ["adapter", "dilated", "float64"])
def test_layers_that_were_replaced_are_called(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    block = make_block()
    fast, x = joined(block), random_map(2, 5, 5, 24)
    without_chains(monkeypatch, fast, x)
    for model in (fast, block):
        if change == "adapter":
            weights = model.ffn.fc2.state_dict()
            model.ffn.fc2 = Adapter(60, 24).requires_grad_(False)
            model.ffn.fc2.load_state_dict(weights)
        elif change == "dilated":
            model.ffn.paths[0].dilation = model.ffn.paths[0].padding = (2, 2)
        else:
            model.double()
    x = x.double() if change == "float64" else x
    torch.testing.assert_close(fast(x.clone()), block(x.clone()))


USES = {
    "half": lambda fast, x: fast.half()(x.half()),
    "training": lambda fast, x: fast.train()(x),
    "no pictures": lambda fast, x: fast(x[:0]),
    "tracing": lambda fast, x: torch.jit.trace(fast, x.clone(), check_trace=False)(x.clone()),
    "export": lambda fast, x: torch.export.export(fast, (x,)).module()(x.clone()),
}


@pytest.mark.parametrize("use", USES)
def test_the_layers_are_called_where_the_chains_are_not_meant(use: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fast, x = joined(make_block()), random_map(2, 5, 5, 24)
    without_chains(monkeypatch, fast, x)
    assert USES[use](fast, x).shape[1:] == x.shape[1:]


def test_dropout_in_evaluation_drops() -> None:
    fast, x = joined(make_block()), random_map(2, 5, 5, 24)
    fast.ffn.drop.train()
    assert not torch.allclose(fast(x.clone()), fast(x.clone()), atol=1e-3)


def test_counters_and_tangents_see_every_layer() -> None:
    fast, x = joined(make_block()), random_map(2, 5, 5, 24)
    with FlopCounterMode(display=False) as counter:
        fast(x.clone())
    assert counter.get_total_flops() > 2 * 2 * 24 * 60 * 2 * 25
    with forward_ad.dual_level():
        assert forward_ad.unpack_dual(fast(forward_ad.make_dual(x, torch.ones_like(x)))).tangent is not None


def test_weights_elsewhere_are_refused_as_by_the_layers() -> None:
    with pytest.raises((RuntimeError, NotImplementedError)):
        joined(make_block()).to("meta")(random_map(2, 5, 5, 24))


@pytest.mark.parametrize("shape", [(5, 5, 24), (2, 5, 5, 16)])
def test_a_map_of_another_shape_is_refused_as_by_the_layers(shape: tuple[int, ...]) -> None:
    with pytest.raises((RuntimeError, IndexError, ValueError)):
        joined(make_block())(torch.zeros(shape))


@pytest.mark.parametrize("wanted", ["input", "weights"])
def test_gradients_come_from_the_layers(wanted: str) -> None:
    block = make_block()
    fast, x = joined(block), random_map(2, 5, 5, 24)
    gradients = []
    for model in (fast, block):
        entering = x.clone().requires_grad_(wanted == "input")
        model.requires_grad_(wanted == "weights")
        model(entering).square().sum().backward()
        gradients.append(entering.grad if wanted == "input" else model.ffn.fc1.weight.grad)
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().sum() > 0


def test_weights_that_change_are_taken_up() -> None:
    block, other = make_block(), make_block()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    fast, x = joined(block), random_map(2, 5, 7, 24)
    fast(x)
    fast.load_state_dict(other.state_dict())
    torch.testing.assert_close(fast(x), other(x.clone()), atol=2e-5, rtol=2e-5)
    fast.token_order = other.token_order = "released"
    torch.testing.assert_close(fast(x), other(x.clone()), atol=2e-5, rtol=2e-5)
    for one in (fast, other):
        one.norm1.eps, one.norm2.eps, one.mixer.activation = 0.5, 0.3, "gelu"
    torch.testing.assert_close(fast(x), other(x.clone()), atol=2e-5, rtol=2e-5)


def test_weights_of_a_copy_made_in_inference_mode_are_taken_up() -> None:
    block, other, x = make_block(), make_block(), random_map(2, 5, 7, 24)
    other.position.bias.add_(1)
    with torch.inference_mode():
        fast = joined(block)
        fast(x)
        fast.load_state_dict(other.state_dict())
        torch.testing.assert_close(fast(x), other(x.clone()), atol=2e-5, rtol=2e-5)


def test_optimizing_twice_joins_once() -> None:
    model = foveate.create_model("fvit_tiny", depths=(1, 1, 1, 1), widths=(16, 24, 32, 40), stem_width=8, num_classes=3)
    once = foveate.optimize(model)
    twice, x = foveate.optimize(once), torch.randn(1, 3, 40, 40)
    assert twice.optimized[-1] == once.optimized[-1] == "4 blocks joined: native chains and products" + AROUND_BLOCKS
    torch.testing.assert_close(twice(x), once(x), atol=0, rtol=0)


def test_a_joined_model_can_be_kept_and_compiled() -> None:
    model = foveate.create_model("fvit_tiny", depths=(1, 1, 1, 1), widths=(16, 24, 32, 40), stem_width=8, num_classes=3).eval()
    fast, x = foveate.optimize(model), torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        expected = model(x)
        file = io.BytesIO()
        fast(x)
        torch.save(fast, file)
        file.seek(0)
        torch.testing.assert_close(torch.load(file, weights_only=False)(x), expected, atol=1e-4, rtol=1e-4)
        whole = torch.compile(fast, fullgraph=True, backend="eager")
        torch.testing.assert_close(whole(x), expected, atol=1e-4, rtol=1e-4)


def test_the_backbone_of_a_segmenter_is_joined() -> None:
    model, _ = create_dense("fvit_tiny", "semantic_fpn", 3)
    fast, x = foveate.optimize(model.eval()), torch.randn(1, 3, 64, 96)
    assert "24 blocks joined" in fast.optimized[-1]
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), model(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["fvit_tiny", "fvit_tiny_dp", "fvit_tiny_plus"])
def test_whole_models_and_what_is_said_of_them(name: str) -> None:
    model = foveate.create_model(name, depths=(1, 1, 2, 1), num_classes=5).eval()
    model.token_order = "released" if name == "fvit_tiny_dp" else "raster"
    fast = foveate.optimize(model)
    assert fast.optimized[-1] == "5 blocks joined: native chains and products" + AROUND_BLOCKS
    assert fast.state_dict().keys() == foveate.optimize(model, compile=False).state_dict().keys()
    with torch.inference_mode():
        for x in (torch.randn(2, 3, 64, 96), torch.randn(1, 3, 50, 37)):
            expected = model(x)
            torch.testing.assert_close(fast(x), expected, atol=1e-4 * expected.abs().max().item(), rtol=1e-4)
            torch.testing.assert_close(copy.deepcopy(fast)(x), fast(x), atol=0, rtol=0)


@pytest.mark.parametrize("options", [{"mixer": "pooling"}, {"paths": 0}], ids=str)
def test_other_blocks_are_left_alone(options: dict[str, object]) -> None:
    model = foveate.create_model("fvit_tiny", depths=(1, 1, 1, 1), widths=(16, 24, 32, 40), **options).eval()
    assert not any(JoinedBlock.fits(module) for module in foveate.optimize(model, compile=False).modules())
