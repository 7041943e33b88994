"""Blocks joined for training learn what their layers learn: outputs, gradients, dropout."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils import prune

import foveate
from foveate.heads.create import create_dense
from foveate.speed.joined import training_blocks as joined_training
from foveate.speed.joined.training_blocks import JoinedTrainingBlock
from foveate.speed.native import feed_forward as native_feed_forward
from foveate.speed.native import training as native_training
from foveate.speed.native.training import can_join, filter_groups
from joined_modules import AROUND_BLOCKS, random_map
from training_blocks import SMALL, joined, make_block
from training_steps import (
    assert_backward_leaves_autocast,
    assert_bfloat16_is_no_worse,
    assert_close,
    assert_default_format_does_not_matter,
    assert_gradients_are_slopes,
    assert_threads_change_nothing,
    assert_trains_alike,
    learnt,
)

pytestmark = pytest.mark.skipif(not can_join(torch.float32), reason="no C++ compiler, or PyTorch without GNU OpenMP")

FORMS: list[dict[str, Any]] = [
    {},
    {"width": 64, "hidden": 192, "paths": 4},
    {"width": 16, "hidden": 48, "paths": 3, "untouched": 1},
    {"width": 40, "hidden": 252, "paths": 4, "untouched": 3},
    {"width": 72, "hidden": 252, "paths": 1},
    {"side": 5, "activation": "gelu"},
    {"side": 7, "activation": "none"},
    {"side": 9, "shared": True, "order": "released"},
    {"width": 33, "hidden": 66, "side": 1},
    {"shared": True, "order": "released"},
    {"drop_path": 0.0},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_joined_block_learns_as_the_block(form: dict[str, Any]) -> None:
    block = make_block(**form)
    fast, exact, width = joined(block), copy.deepcopy(block).double(), block.position.out_channels
    for number, (pictures, height, length) in enumerate([(1, 1, 1), (2, 3, 5), (3, 14, 14), (1, 33, 20), (9, 7, 2)]):
        x = random_map(pictures, height, length, width, seed=number)
        before = x.clone()
        assert_close(learnt(fast, x), learnt(exact, x.double()))
        assert torch.equal(x, before)


def test_threads_change_nothing_but_rounding() -> None:
    """With more threads than pictures the map is shared out in bands of rows, whose borders are computed twice and summed once."""
    assert_threads_change_nothing(joined(make_block(side=5)), random_map(2, 41, 9, 24))


@pytest.mark.parametrize(("pictures", "height", "length"), [(9, 5, 7), (6, 19, 17), (9, 2, 3), (6, 1, 1)])
def test_threads_may_take_whole_pictures(pictures: int, height: int, length: int) -> None:
    """With their products, where there are enough of them: with one thread here, two, and three, but not with sixteen.

    Where all have few pixels together these go through one step after the other.
    """
    block = make_block(32, hidden=96, paths=3, untouched=1)
    assert_threads_change_nothing(joined(block), random_map(pictures, height, length, 32))


@pytest.mark.parametrize("side", [3, 8])
def test_large_weights_have_sums_for_each_thread(side: int) -> None:
    """But for few pixels, where threads share the weights instead of the pictures."""
    block = make_block(256, hidden=768)
    assert_threads_change_nothing(joined(block), random_map(9, side, side, 256))


def test_weights_may_lie_in_memory_in_any_order() -> None:
    block, x = make_block(32, hidden=96), random_map(4, 5, 6, 32)
    exact = copy.deepcopy(block).double()
    for layer in (block.ffn.fc1, block.ffn.fc2):
        layer.weight = torch.nn.Parameter(layer.weight.detach().t().contiguous().t())
    assert_close(learnt(joined(block), x), learnt(exact, x.double()))


@pytest.mark.parametrize("pixels", [(5, 6), (2, 3)])
@pytest.mark.parametrize("frozen", ["ffn.fc1.weight", "ffn.fc2.weight"])
def test_products_that_are_frozen_get_no_gradient(frozen: str, pixels: tuple[int, int]) -> None:
    block, x = make_block(32, hidden=96), random_map(4, *pixels, 32)
    exact = copy.deepcopy(block).double()
    for model in (block, exact):
        model.get_parameter(frozen).requires_grad_(False)
    fast = joined(block)
    assert_close(learnt(fast, x), learnt(exact, x.double()))
    assert fast.get_parameter(frozen).grad is None


def test_pictures_may_be_taken_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers are dropped then."""
    fast, x = joined(make_block(drop=0.4)), random_map(5, 6, 7, 24)
    whole, pieces = learnt(fast, x), []

    def counted(hidden: Tensor, *given: Any) -> Tensor:
        pieces.append(len(hidden))
        return filter_groups(hidden, *given)

    monkeypatch.setattr(joined_training, "HIDDEN_NUMBERS", 2 * 6 * 7 * 60 + 1)
    monkeypatch.setattr(native_training, "filter_groups", counted)
    assert_close(learnt(fast, x), whole)
    assert pieces == [2, 2, 1]


@pytest.mark.parametrize("pixels", [(6, 7), (2, 3)])
def test_products_around_and_within_drop_the_same_numbers(pixels: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    fast, x = joined(make_block(32, hidden=96, drop=0.4)), random_map(6, *pixels, 32)
    within = learnt(fast, x)
    monkeypatch.setattr(native_feed_forward, "are_enough", lambda _: False)
    assert_close(learnt(fast, x), within)


@pytest.mark.parametrize(("width", "hidden"), [(24, 60), (32, 96)])
def test_backward_may_run_twice(width: int, hidden: int) -> None:
    fast, x = joined(make_block(width, hidden=hidden, drop=0.2)), random_map(3, 6, 7, width).requires_grad_()
    loss = fast(x).square().sum()
    once = torch.autograd.grad(loss, (x, *fast.parameters()), retain_graph=True)
    twice = torch.autograd.grad(loss, (x, *fast.parameters()))
    assert all(torch.equal(first, second) for first, second in zip(once, twice, strict=True))


DROPPING: list[dict[str, Any]] = [
    {},
    {"width": 40, "hidden": 252, "paths": 4, "untouched": 2},
    {"width": 32, "hidden": 96, "paths": 3, "untouched": 1},
]


@pytest.mark.parametrize("form", DROPPING, ids=str)
def test_gradients_go_through_the_numbers_that_dropout_kept(form: dict[str, Any]) -> None:
    """GELU, since ReLU has a kink."""
    fast = joined(make_block(**form, drop=0.3, activation="gelu"))
    assert_gradients_are_slopes(fast, random_map(3, 9, 8, fast.position.out_channels))


def test_no_dropout_in_evaluation_and_everything_at_rate_one() -> None:
    block, x = make_block(drop=0.3), random_map(2, 6, 6, 24)
    with torch.no_grad():
        torch.testing.assert_close(joined(block.eval())(x), block(x.clone()), atol=1e-5, rtol=1e-5)
    dead = joined(make_block(drop=1.0, drop_path=0.0))
    found = learnt(dead, x)
    assert float(found["ffn.fc2.weight"].abs().max()) == 0.0
    assert found["y"].isfinite().all()


@pytest.mark.parametrize("drop", [0.0, 0.2])
def test_bfloat16_under_autocast(drop: float) -> None:
    """GELU, since a few numbers on the other side of ReLU's kink make more of a difference than the format."""
    block = make_block(64, hidden=192, paths=4, drop=drop, activation="gelu")
    assert_bfloat16_is_no_worse(joined(block), block, random_map(3, 9, 11, 64), exactly=drop == 0)


def test_frozen_weights_get_no_gradients() -> None:
    fast = joined(make_block())
    fast.ffn.requires_grad_(False)
    fast.position.weight.requires_grad_(False)
    expected = learnt(joined(make_block()), random_map(2, 5, 5, 24))
    found = learnt(fast, random_map(2, 5, 5, 24))
    assert [name for name, value in found.items() if value is None] == [
        "position.weight",
        *(name for name in expected if name.startswith("ffn")),
    ]
    assert all(torch.equal(value, expected[name]) for name, value in found.items() if value is not None)


@pytest.mark.parametrize("name", ["fvit_tiny", "fvit_tiny_dp", "fvit_tiny_plus"])
def test_a_model_learns_the_same_joined(name: str) -> None:
    """Ten steps of a whole model without dropout; of one family with gradient checkpointing."""
    torch.manual_seed(0)
    plain = foveate.create_model(name, **SMALL, proj_drop_rate=0.0).train()
    fast = copy.deepcopy(plain)
    assert foveate.optimize_for_training(fast)[0] == "5 blocks joined: native chains and products, forward and backward"
    assert fast.state_dict().keys() == plain.state_dict().keys()
    x = torch.randn(6, 3, 64, 48)
    fast.set_grad_checkpointing(name == "fvit_tiny")
    assert_trains_alike(plain, fast, x, lr=0.05)
    with torch.no_grad():
        torch.testing.assert_close(fast.eval()(x), copy.deepcopy(fast).double()(x.double()).float(), atol=1e-3, rtol=1e-3)


def test_checkpointing_drops_the_same_numbers_again() -> None:
    torch.manual_seed(0)
    model = foveate.create_model("fvit_tiny", **SMALL, proj_drop_rate=0.2, drop_path_rate=0.2).train()
    foveate.optimize_for_training(model)
    plain = learnt(model, random_map(4, 3, 48, 48))
    model.set_grad_checkpointing(True)
    assert_close(learnt(model, random_map(4, 3, 48, 48)), plain, tolerance=1e-3)


def test_a_joined_model_becomes_one_for_inference() -> None:
    model = foveate.create_model("fvit_tiny", **SMALL)
    foveate.optimize_for_training(model)
    fast, x = foveate.optimize(model), torch.randn(1, 3, 40, 40)
    assert fast.optimized[-1] == "5 blocks joined: native chains and products" + AROUND_BLOCKS
    assert sum(isinstance(module, JoinedTrainingBlock) for module in model.modules()) == 5
    with torch.no_grad():
        torch.testing.assert_close(fast(x), model.eval()(x), atol=1e-4, rtol=1e-4)


def test_the_backbone_of_a_segmenter_is_joined_too() -> None:
    options = {name: value for name, value in SMALL.items() if name != "num_classes"}
    model = create_dense("fvit_tiny", "semantic_fpn", 3, **options)[0]
    assert foveate.optimize_for_training(model)[0].startswith("5 blocks joined")
    loss = model.train()(torch.randn(2, 3, 64, 64)).square().mean()
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def weights_behind_biases(block: Any) -> None:
    """As pruning leaves a layer when it is made permanent."""
    for layer in (block.position, block.norm1, block.norm2, *block.ffn.paths):
        prune.identity(layer, "weight")
        prune.remove(layer, "weight")
        assert [name for name, _ in layer.named_parameters()] == ["bias", "weight"]


def tied_paths(block: Any) -> None:
    block.ffn.paths[1].weight, block.ffn.paths[1].bias = block.ffn.paths[0].weight, block.ffn.paths[0].bias


@pytest.mark.parametrize("change", [weights_behind_biases, tied_paths])
def test_weights_are_known_by_their_names(change: Callable[[Any], None]) -> None:
    block = make_block()
    fast = joined(block)
    change(block)
    change(fast)
    x = random_map(2, 5, 5, 24)
    assert_close(learnt(fast, x), learnt(block.double(), x.double()))


def test_a_backward_pass_under_autocast_is_in_the_number_format_of_the_forward_pass() -> None:
    assert_backward_leaves_autocast(joined(make_block(drop_path=0.0)), random_map(2, 5, 5, 24))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_default_number_format_does_not_matter(dtype: torch.dtype) -> None:
    assert_default_format_does_not_matter(joined(make_block()), random_map(2, 5, 5, 24), dtype)


def test_sums_over_pieces_are_not_rounded_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    fast, x = joined(make_block(drop_path=0.0)), random_map(40, 4, 4, 24)
    deviations = []
    exact = learnt(make_block(drop_path=0.0).double(), x.double())["ffn.fc1.weight"]
    for numbers in (2**22, 1):
        monkeypatch.setattr(joined_training, "HIDDEN_NUMBERS", numbers)
        with torch.autocast("cpu", torch.bfloat16):
            deviations.append(float((learnt(fast, x)["ffn.fc1.weight"] - exact).norm() / exact.norm()))
    assert deviations[1] < 1.2 * deviations[0]
