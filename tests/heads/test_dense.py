"""What trainer and weight files ask of every head on every backbone."""

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from foveate.heads.create import create_dense
from foveate.tasks.optimizer import freeze_backbone, make_optimizer, parameter_groups, set_learning_rate, training_mode
from foveate.tasks.settings import TrainSettings

HEADS = ("retinanet", "mask_rcnn", "semantic_fpn")
NAMES = ("fvit_tiny", "t2t_vit_7", "resnet10t")
everywhere = [pytest.mark.parametrize("head", HEADS), pytest.mark.parametrize("name", NAMES)]


def on_every_model(test: Any) -> Any:
    for mark in everywhere:
        test = mark(test)
    return test


on_some_models = pytest.mark.parametrize(
    ("name", "head"), [*((name, "semantic_fpn") for name in NAMES), ("fvit_tiny", "retinanet"), ("resnet10t", "mask_rcnn")]
)


def loss_of(model: Any, pictures: Tensor, targets: Any, head: str) -> Tensor:
    torch.manual_seed(0)  # Mask R-CNN draws the regions it learns from
    if head == "semantic_fpn":
        return torch.nn.functional.cross_entropy(model(pictures), torch.zeros(2, 64, 64, dtype=torch.int64))
    return sum(model(pictures, None, targets).values())


@on_every_model
def test_every_parameter_gets_a_gradient(make, pictures: Tensor, targets, name: str, head: str) -> None:
    """Also from pictures without objects: several processes wait for each other's gradients, of every parameter."""
    model = make(name, head)
    for one in ([targets[1]] * 2, targets):
        model.zero_grad()
        loss_of(model, pictures, one, head).backward()
        assert not [key for key, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None]
    if name != "resnet10t":  # which begins with residual branches that are switched off
        assert all(parameter.grad.any() for parameter in model.network.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_atto"])
def test_nothing_unused_is_left_of_timms_networks(name: str, pictures: Tensor) -> None:
    options = {"depth": 1} if name.startswith("deit") else {"depths": (1, 1, 1, 1)}
    model = create_dense(name, "semantic_fpn", 3, **options)[0]
    model(pictures).sum().backward()
    assert not [key for key, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None]


@on_some_models
def test_recomputing_activations_changes_nothing_but_the_work(make, pictures: Tensor, targets, name: str, head: str) -> None:
    results = []
    for checkpointed in (False, True):
        model = copy.deepcopy(make(name, head))
        model.set_grad_checkpointing(checkpointed)
        runs: Counter[str] = Counter()
        for key, module in model.network.named_modules():
            if not list(module.children()):
                module.register_forward_hook(lambda *_, key=key, runs=runs: runs.update([key]))
        loss = loss_of(model, pictures, targets, head)
        loss.backward()
        results.append((loss.detach(), {key: parameter.grad for key, parameter in model.named_parameters()}, runs))
    (loss, gradients, once), (same_loss, same_gradients, twice) = results
    torch.testing.assert_close(loss, same_loss)
    for key, gradient in gradients.items():
        torch.testing.assert_close(gradient, same_gradients[key], atol=1e-5, rtol=1e-3)
    recomputed = sum(twice[key] == 2 * once[key] for key in once)
    assert recomputed > len(once) / 2, "most layers run a second time"


@on_every_model
def test_names_without_decay_are_names_of_parameters(make, name: str, head: str) -> None:
    model = make(name, head)
    names = {key for key, _ in model.named_parameters()}
    spared = model.no_weight_decay()
    assert spared <= names | {key for key, _ in model.named_buffers()}
    assert bool(spared) == (name != "resnet10t")
    groups = parameter_groups(model, TrainSettings(weight_decay=0.05))
    decays = {key: group["weight_decay"] for group in groups for key in group["names"]}
    assert sorted(decays) == sorted(key for key, parameter in model.named_parameters() if parameter.requires_grad)
    assert {decays[key] for key in spared & set(decays)} <= {0.0}
    assert {decay for key, decay in decays.items() if key.endswith("bias") or "norm" in key} == {0.0}


@on_every_model
def test_head_and_network_are_everything_each_once(make, name: str, head: str) -> None:
    model = make(name, head)
    of_head = [id(parameter) for module in model.head_modules() for parameter in module.parameters()]
    of_network = [id(parameter) for parameter in model.network.parameters()]
    assert len(of_head + of_network) == len({*of_head, *of_network}) == len(list(model.parameters()))
    inside = {key for key, _ in model.named_parameters() if key.startswith(model.network_prefix)}
    assert inside == {model.network_prefix + key for key, _ in model.network.named_parameters()}
    assert set(model.class_layers) <= {key for key, _ in model.named_modules()}


@on_some_models
def test_a_frozen_backbone_trains_exactly_the_head(make, pictures: Tensor, targets, name: str, head: str) -> None:
    model = copy.deepcopy(make(name, head))
    freeze_backbone(model)
    training_mode(model, frozen=True)
    assert not any(module.training for module in model.network.modules())
    assert all(module.training for part in model.head_modules() for module in part.modules())
    assert model.training, "a detector gives losses"
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = make_optimizer(model, TrainSettings(weight_decay=0.05), fused=False)
    set_learning_rate(optimizer, 0.1)
    loss_of(model, pictures, targets, head).backward()
    optimizer.step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {key for key in before if not key.startswith(model.network_prefix)}


@pytest.mark.parametrize(("name", "lowest"), [("fvit_tiny", "stem"), ("t2t_vit_7", "cls_token"), ("resnet10t", "conv1")])
@pytest.mark.parametrize("head", HEADS)
def test_layer_decay_falls_from_the_head_down(make, name: str, lowest: str, head: str) -> None:
    model = make(name, head)
    settings = TrainSettings(layer_decay=0.5, backbone_lr_scale=1.0)
    scale = {key: group["lr_scale"] for group in parameter_groups(model, settings) for key in group["names"]}
    of_head = {id(parameter) for module in model.head_modules() for parameter in module.parameters()}
    inside = {key: scale[key] for key, parameter in model.named_parameters() if key in scale and id(parameter) not in of_head}
    assert {scale[key] for key in scale.keys() - inside.keys()} == {1.0}
    layers = sorted(set(inside.values()), reverse=True)
    assert layers == [0.5**depth for depth in range(1, len(layers) + 1)], "one factor more for each layer down, none left out"
    assert {value for key, value in inside.items() if key.startswith(model.network_prefix + lowest)} == {layers[-1]}


def test_the_backbones_own_rate_spares_the_head(make) -> None:
    model = make("t2t_vit_7", "retinanet")
    groups = parameter_groups(model, TrainSettings(backbone_lr_scale=0.1))
    for group in groups:
        assert {key.startswith(model.network_prefix) for key in group["names"]} == {group["lr_scale"] == 0.1}


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_batch_norm_reaches_the_backbone_and_stays_in_training_mode(pictures: Tensor, frozen: bool) -> None:
    model = create_dense("resnet10t", "semantic_fpn", 3, freeze_batch_norm=frozen)[0]
    training_mode(model, frozen=False)
    before = model.network.bn1.running_mean.clone()
    model(pictures)
    assert torch.equal(model.network.bn1.running_mean, before) == frozen
    assert model.network.bn1.weight.requires_grad
