"""An optimized T2T-ViT computes of its last block what its logits need, and all of it for whoever wants to see more."""

from typing import Any

import pytest
import torch

import foveate
from foveate.speed.joined.classifier import JoinedT2TViT
from foveate.speed.native.token_block import can_join
from joined_modules import random_map

pytestmark = pytest.mark.skipif(not can_join(), reason="no C++ compiler, or PyTorch without GNU OpenMP")


def make_pair(**options: Any) -> tuple[Any, Any, list[tuple[int, ...]]]:
    """A small model, its optimized form, and the shapes of what the latter's head takes from now on."""
    torch.manual_seed(0)
    model: Any = foveate.create_model("t2t_vit_7", depth=2, num_classes=5, **options).eval()
    fast: Any = foveate.optimize(model)
    assert type(fast) is JoinedT2TViT
    shapes: list[tuple[int, ...]] = []
    head = fast.forward_head
    fast.forward_head = lambda x, *rest: shapes.append(tuple(x.shape)) or head(x, *rest)
    return model, fast, shapes


def test_logits_come_from_the_class_token_alone() -> None:
    model, fast, shapes = make_pair()
    for size in ((2, 3, 64, 96), (1, 3, 50, 37)):
        x = random_map(*size)
        torch.testing.assert_close(fast(x), model(x).detach(), atol=2e-5, rtol=2e-5)
        torch.testing.assert_close(fast.forward_features(x), model.forward_features(x).detach(), atol=1e-4, rtol=1e-4)
    assert shapes == [(2, 1, 256), (1, 1, 256)]
    assert fast.optimized[-1].endswith("; classifier joined: of the last block what the class token needs")
    assert type(foveate.optimize(fast)) is JoinedT2TViT


@pytest.mark.parametrize("watched", ["norm", "blocks.1", "blocks.1.attn.proj", "blocks.1.mlp"])
def test_whoever_watches_sees_all_tokens(watched: str) -> None:
    model, fast, _ = make_pair()
    x, seen = random_map(2, 3, 64, 64), []
    fast.get_submodule(watched).register_forward_hook(lambda _, __, y: seen.append(y.shape[1]))
    torch.testing.assert_close(fast(x), model(x).detach(), atol=2e-5, rtol=2e-5)
    assert seen == [17]


def test_the_mean_of_all_tokens_asks_for_all() -> None:
    model, fast, shapes = make_pair(global_pool="avg")
    x = random_map(2, 3, 64, 64)
    torch.testing.assert_close(fast(x), model(x).detach(), atol=2e-5, rtol=2e-5)
    assert shapes == [(2, 17, 256)]


def test_exporters_see_every_layer() -> None:
    model, fast, _ = make_pair()
    del fast.forward_head
    x = random_map(2, 3, 64, 64)
    torch.testing.assert_close(torch.export.export(fast, (x,)).module()(x), model(x).detach(), atol=2e-5, rtol=2e-5)
