"""An optimized T2T-ViT computes of its last block what its logits need, and all of it for whoever wants to see more."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

import foveate
from foveate.speed.joined.classifier import JoinedT2TViT
from foveate.speed.joined.token_blocks import JoinedTokenBlock
from foveate.speed.native.token_block import can_join
from joined_modules import random_map

pytestmark = pytest.mark.skipif(not can_join(), reason="no C++ compiler, or PyTorch without GNU OpenMP")


@pytest.fixture
def single(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures went through a last block of which one token was asked."""
    pictures: list[int] = []
    first_token = JoinedTokenBlock.first_token

    def noted(block: JoinedTokenBlock, x: Tensor) -> Tensor:
        pictures.append(len(x))
        return first_token(block, x)

    monkeypatch.setattr(JoinedTokenBlock, "first_token", noted)
    return pictures


def make_pair(**options: Any) -> tuple[Any, Any]:
    """A small model and its optimized form."""
    torch.manual_seed(0)
    model: Any = foveate.create_model("t2t_vit_7", depth=2, num_classes=5, **options).eval()
    fast: Any = foveate.optimize(model)
    assert type(fast) is JoinedT2TViT
    return model, fast


def test_logits_come_from_the_class_token_alone(single: list[int]) -> None:
    model, fast = make_pair()
    for size in ((2, 3, 64, 96), (1, 3, 50, 37)):
        x = random_map(*size)
        torch.testing.assert_close(fast(x), model(x).detach(), atol=2e-5, rtol=2e-5)
        torch.testing.assert_close(fast.forward_features(x), model.forward_features(x).detach(), atol=1e-4, rtol=1e-4)
    assert single == [2, 1]
    assert fast.optimized[-1].endswith("; classifier joined: of the last block what the class token needs")
    assert type(foveate.optimize(fast)) is JoinedT2TViT


@pytest.mark.parametrize("watched", ["norm", "blocks.1", "blocks.1.attn.proj", "blocks.1.mlp"])
def test_whoever_watches_sees_all_tokens(watched: str) -> None:
    model, fast = make_pair()
    x, seen = random_map(2, 3, 64, 64), []
    fast.get_submodule(watched).register_forward_hook(lambda _, __, y: seen.append(y.shape[1]))
    torch.testing.assert_close(fast(x), model(x).detach(), atol=2e-5, rtol=2e-5)
    assert seen == [17]


def test_whoever_watches_all_modules_sees_all_tokens(single: list[int]) -> None:
    _, fast = make_pair()
    with register_module_forward_hook(lambda *_: None):
        fast(random_map(1, 3, 64, 64))
    assert not single


def with_mean(model: Any) -> None:
    model.global_pool = "avg"


def with_another_last_block(model: Any) -> None:
    model.blocks[-1] = nn.Sequential(model.blocks[-1])


def without_blocks(model: Any) -> None:
    model.prune_intermediate_layers([0], prune_head=False)


def with_other_features(model: Any) -> None:
    features = model.forward_features
    model.forward_features = lambda x: 2 * features(x)


@pytest.mark.parametrize("change", [with_mean, with_another_last_block, without_blocks, with_other_features])
def test_a_model_that_was_changed_asks_for_all_tokens(change: Callable[[Any], None], single: list[int]) -> None:
    model, fast = make_pair()
    for either in (model, fast):
        change(either)
    x = random_map(2, 3, 64, 64)
    torch.testing.assert_close(fast(x), model(x).detach(), atol=5e-5, rtol=2e-5)
    assert not single
    torch.testing.assert_close(foveate.optimize(fast, compile=False)(x), model(x).detach(), atol=5e-5, rtol=2e-5)


def test_exporters_see_every_layer(single: list[int]) -> None:
    model, fast = make_pair()
    x = random_map(2, 3, 64, 64)
    torch.testing.assert_close(torch.export.export(fast, (x,)).module()(x), model(x).detach(), atol=2e-5, rtol=2e-5)
    assert not single
