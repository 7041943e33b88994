"""Heads on backbones by name: the sizes that papers print, what weights fill, what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from foveate.card import ModelCard, WholePicture
from foveate.errors import UserError
from foveate.factory import create_model
from foveate.heads.create import create_dense
from foveate.opening import open_model
from foveate.weights.save import write_safetensors

TINY_FVIT = {"widths": (8, 8, 8, 16), "depths": (1, 1, 1, 1), "stem_width": 8}
FROZEN = ("conv1.", "bn1.", "layer1.")  # what detectors freeze, and papers do not count


@pytest.mark.parametrize(
    ("head", "classes", "all_of_them", "learnable", "printed"),
    [("retinanet", 80, 37.97, 37.74, 37.7), ("mask_rcnn", 80, 44.40, 44.18, 44.2), ("semantic_fpn", 150, 28.50, None, 28.5)],
)
def test_resnet50_has_the_parameters_that_papers_print(
    head: str, classes: int, all_of_them: float, learnable: float | None, printed: float
) -> None:
    with torch.device("meta"):
        model, _ = create_dense("resnet50", head, classes)
    sizes = {name: parameter.numel() / 1e6 for name, parameter in model.named_parameters()}
    assert sum(sizes.values()) == pytest.approx(all_of_them, abs=0.006)
    kept = sum(size for name, size in sizes.items() if not name.removeprefix(model.network_prefix).startswith(FROZEN))
    assert kept == pytest.approx(learnable or kept, abs=0.006)
    assert (kept if learnable else all_of_them) == pytest.approx(printed, rel=0.002)


@pytest.mark.parametrize("in_chans", [1, 4])
@pytest.mark.parametrize("head", ["retinanet", "mask_rcnn", "semantic_fpn"])
def test_pictures_of_other_channels(head: str, in_chans: int) -> None:
    model = create_dense("fvit_tiny", head, 2, in_chans=in_chans, **TINY_FVIT)[0].eval()
    with torch.inference_mode():
        found = model(torch.randn(1, in_chans, 32, 32))
    assert len(found) == 1
    assert any(parameter.ndim == 4 and parameter.shape[1] == in_chans for parameter in model.network.parameters())


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "t2t_vit_7"])
def test_networks_made_for_one_size_take_any(name: str) -> None:
    options = {} if name == "t2t_vit_7" else {"depth": 1} if name.startswith("deit") else {"depths": (1, 1, 2, 1)}
    model = create_dense(name, "semantic_fpn", 2, **options)[0].eval()
    with torch.inference_mode():
        for height, width in ((32, 32), (65, 31), (33, 97)):
            assert model(torch.randn(1, 3, height, width)).shape == (1, 2, height, width)


@pytest.mark.parametrize(
    ("name", "head", "options", "message"),
    [
        ("mixer_s16_224", "semantic_fpn", {}, "model mixer_s16_224: found a network for pictures of one size only"),
        ("resnet10t", "yolo", {}, "head: found 'yolo', expected one of retinanet, mask_rcnn, semantic_fpn"),
        ("resnet1", "retinanet", {}, "model: found 'resnet1', expected a name of"),
        ("resnet10t", "retinanet", {"bogus": 1}, "model resnet10t: found an option it does not take .*bogus"),
        ("deit_tiny_patch16_224", "retinanet", {"bogus": 1}, "model deit_tiny_patch16_224: found an option it does not take .*bogus"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(name: str, head: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        create_dense(name, head, 2, **options)
    assert "\n" not in str(error.value)


def saved(folder: Path, model: torch.nn.Module, card: ModelCard) -> Path:
    path = folder / f"{card.head or 'classifier'}.safetensors"
    write_safetensors(path, model.state_dict(), card)
    return path


@pytest.mark.parametrize(("name", "options"), [("fvit_tiny", TINY_FVIT), ("resnet10t", {}), ("t2t_vit_7", {})])
def test_a_classifiers_file_fills_the_backbone_exactly(name: str, options: dict[str, tuple[int, ...]], tmp_path: Path) -> None:
    classifier = create_model(name, num_classes=7, **options)
    for parameter in classifier.parameters():
        parameter.data.normal_()
    path = saved(tmp_path, classifier, ModelCard(name, 7, options=dict(options)))
    model, report = create_dense(name, "retinanet", 3, path, **options)
    assert report is not None
    stored = classifier.state_dict()
    held = model.network.state_dict()
    assert held and all(torch.equal(value, stored[key]) for key, value in held.items())
    head = set(classifier.get_classifier().state_dict())
    prefix = next(key for key, module in classifier.named_modules() if module is classifier.get_classifier())
    assert set(report.ignored) == {f"{prefix}.{key}" for key in head}
    assert set(report.matched) == set(stored) - set(report.ignored)
    assert not report.fresh and not report.resized
    assert f"{len(report.matched)} tensors loaded" in str(report)


def test_a_classifier_of_colours_fills_a_backbone_of_grey(tmp_path: Path) -> None:
    classifier = create_model("resnet10t", num_classes=7)
    path = saved(tmp_path, classifier, ModelCard("resnet10t", 7))
    model, report = create_dense("resnet10t", "semantic_fpn", 3, path, in_chans=1)
    assert report is not None and [name for name, _, _ in report.resized] == ["conv1.0.weight"]
    torch.testing.assert_close(model.network.conv1[0].weight, classifier.conv1[0].weight.sum(dim=1, keepdim=True))


def dense_card(head: str, classes: int, **changes: object) -> ModelCard:
    task = "segment" if head == "semantic_fpn" else "detect"
    card = ModelCard("fvit_tiny", classes, options=dict(TINY_FVIT), preprocessing=WholePicture(64, 64), task=task, head=head)
    return replace(card, **changes)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file of each head with five classes."""
    folder = tmp_path_factory.mktemp("dense")
    heads = ("retinanet", "mask_rcnn", "semantic_fpn")
    return {head: saved(folder, create_dense("fvit_tiny", head, 5, **TINY_FVIT)[0], dense_card(head, 5)) for head in heads}


@pytest.mark.parametrize("head", ["retinanet", "mask_rcnn", "semantic_fpn"])
def test_a_file_of_its_own_kind_fills_all_but_the_layers_of_other_classes(head: str, files: dict[str, Path]) -> None:
    same, report = create_dense("fvit_tiny", head, 5, files[head], **TINY_FVIT)
    assert report is not None and not report.fresh and set(report.matched) == set(same.state_dict())
    other, report = create_dense("fvit_tiny", head, 2, files[head], **TINY_FVIT)
    assert report is not None
    assert set(report.fresh) == {f"{layer}.{kind}" for layer in other.class_layers for kind in ("weight", "bias")}
    held, stored = other.state_dict(), same.state_dict()
    assert set(report.matched) == set(held) - set(report.fresh)
    assert all(torch.equal(held[name], stored[name]) for name in report.matched)


def test_weights_of_another_head_or_backbone_are_refused_in_one_line(files: dict[str, Path], tmp_path: Path) -> None:
    cases = [
        (files["retinanet"], "fvit_tiny", "mask_rcnn", "found weights of a retinanet on fvit_tiny, expected mask_rcnn on fvit_tiny"),
        (files["semantic_fpn"], "fvit_tiny", "retinanet", "found weights of a semantic_fpn on fvit_tiny"),
        (files["retinanet"], "resnet10t", "retinanet", "do not fit resnet10t .*the file says it is a fvit_tiny"),
        (saved(tmp_path, create_model("resnet10t", num_classes=2), ModelCard("resnet10t", 2)), "fvit_tiny", "retinanet", "is a resnet10t"),
        (tmp_path / "absent", "fvit_tiny", "retinanet", "found no weights"),
    ]
    for path, name, head, message in cases:
        with pytest.raises(UserError, match=message) as error:
            create_dense(name, head, 5, path, **(TINY_FVIT if name == "fvit_tiny" else {}))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("head", ["retinanet", "mask_rcnn", "semantic_fpn"])
def test_the_file_alone_is_the_model(head: str, files: dict[str, Path], lenient: Callable[..., Any]) -> None:
    model = create_dense("fvit_tiny", head, 5, files[head], **TINY_FVIT)[0].eval()
    opened, card = open_model(files[head])
    assert (card.head, card.num_classes, opened.training) == (head, 5, False)
    x = torch.randn(2, 3, 50, 64)
    with torch.inference_mode():
        if head == "semantic_fpn":
            assert torch.equal(opened(x), model(x))
            return
        for a, b in zip(lenient(opened)(x), lenient(model)(x), strict=True):
            assert len(a["boxes"]) and set(a) == set(b)
            assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_order_of_tokens_follows_the_file(tmp_path: Path) -> None:
    """Weights that were trained in the released order are useless in another."""
    card = dense_card("retinanet", 5, options={**TINY_FVIT, "token_order": "released"})
    detector, _ = create_dense("fvit_tiny", "retinanet", 5, **TINY_FVIT, token_order="released")
    path = saved(tmp_path, detector, card)
    assert open_model(path)[0].network.token_order == "released"
    model, report = create_dense("fvit_tiny", "retinanet", 3, path, **TINY_FVIT)
    assert report is not None and report.token_order == "released"
    assert model.network.token_order == model.token_order == "released"
    assert create_dense("resnet10t", "retinanet", 3)[0].pretrained_cfg["architecture"] == "resnet10t"
    assert not hasattr(create_dense("resnet10t", "retinanet", 3)[0], "token_order")
