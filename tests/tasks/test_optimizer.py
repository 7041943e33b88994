import itertools
from dataclasses import replace

import pytest
import timm
import torch
from torch import nn

from foveate.errors import UserError
from foveate.factory import create_model
from foveate.heads.create import create_dense
from foveate.layers.gabor import LearnableGaborFilter
from foveate.tasks.optimizer import classifier, freeze_backbone, make_optimizer, parameter_groups, set_learning_rate, training_mode
from foveate.tasks.settings import TrainSettings

SETTINGS = TrainSettings(weight_decay=0.05, warmup_epochs=0)


@pytest.fixture(scope="module")
def fvit():
    return create_model("fvit_tiny", num_classes=5, widths=(8, 8, 8, 16), depths=(1, 1, 2, 1), stem_width=8)


@pytest.fixture(scope="module")
def t2t():
    return create_model("t2t_vit_7", num_classes=5, img_size=32)


def placed(model, settings=SETTINGS):
    """Parameter name -> its group."""
    return {name: group for group in parameter_groups(model, settings) for name in group["names"]}


@pytest.mark.parametrize("name", ["fvit", "t2t"])
def test_every_learnable_parameter_is_in_exactly_one_group(name, request):
    model = request.getfixturevalue(name)
    names = [name for group in parameter_groups(model, SETTINGS) for name in group["names"]]
    assert sorted(names) == sorted(name for name, parameter in model.named_parameters() if parameter.requires_grad)


def test_gabor_parameters_biases_and_norms_do_not_decay(fvit):
    groups = placed(fvit)
    gabor = [f"{name}.{own}" for name, m in fvit.named_modules() if isinstance(m, LearnableGaborFilter) for own, _ in m.named_parameters()]
    assert len(gabor) == 5 * 9
    spared = gabor + [name for name in groups if name.endswith("bias") or "norm" in name]
    assert {groups[name]["weight_decay"] for name in spared} == {0.0}
    assert groups["head.weight"]["weight_decay"] == 0.05


def test_tables_and_class_token_do_not_decay(t2t):
    groups = placed(t2t)
    assert groups["cls_token"]["weight_decay"] == 0.0
    assert "pos_embed" not in groups, "the frozen table is not given to the optimiser"
    assert groups["blocks.0.attn.qkv.weight"]["weight_decay"] == 0.05


def test_layer_decay_grows_towards_the_head(t2t):
    groups = placed(t2t, replace(SETTINGS, layer_decay=0.5))
    scales = [groups[f"blocks.{i}.mlp.fc1.weight"]["lr_scale"] for i in range(7)]
    assert [above / below for below, above in itertools.pairwise(scales)] == [2.0] * 6
    assert groups["head.weight"]["lr_scale"] == 1.0
    assert groups["cls_token"]["lr_scale"] < scales[0]


def test_backbone_scale_spares_the_classifier():
    model = timm.create_model("resnet10t", num_classes=3)
    groups = placed(model, replace(SETTINGS, backbone_lr_scale=0.01))
    assert groups["fc.weight"]["lr_scale"] == groups["fc.bias"]["lr_scale"] == 1.0
    assert {group["lr_scale"] for name, group in groups.items() if not name.startswith("fc.")} == {0.01}


def test_frozen_backbone_stays_as_it_is_to_the_bit():
    model = timm.create_model("resnet10t", num_classes=3)
    freeze_backbone(model)
    training_mode(model, frozen=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = make_optimizer(model, SETTINGS, fused=False)
    set_learning_rate(optimizer, 0.1)
    nn.functional.cross_entropy(model(torch.randn(4, 3, 32, 32)), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"fc.weight", "fc.bias"}


def test_learning_rate_is_the_schedules_times_the_groups_factor(t2t):
    optimizer = make_optimizer(t2t, replace(SETTINGS, layer_decay=0.5, optimizer="sgd"), fused=False)
    set_learning_rate(optimizer, 0.3)
    assert {group["lr"] for group in optimizer.param_groups} == {0.3 * group["lr_scale"] for group in optimizer.param_groups}


def test_model_without_classifier_or_layers_is_refused(t2t):
    with pytest.raises(UserError, match="no classifier"):
        classifier(nn.Linear(2, 2))
    with pytest.raises(UserError, match="layer-decay"):
        bare = nn.Module()
        bare.head = nn.Linear(2, 2)
        bare.get_classifier = lambda: bare.head
        parameter_groups(bare, replace(SETTINGS, layer_decay=0.9))


def test_a_detectors_head_learns_at_the_full_rate_and_its_network_as_below_a_classifier():
    chosen = replace(SETTINGS, layer_decay=0.5, backbone_lr_scale=0.1)
    model = create_dense("resnet10t", "retinanet", 3)[0]
    dense, plain = placed(model, chosen), placed(timm.create_model("resnet10t", num_classes=3), chosen)
    inside = {name.removeprefix(model.network_prefix): group for name, group in dense.items() if name.startswith(model.network_prefix)}
    assert set(plain) - set(inside) == {"fc.weight", "fc.bias"}
    assert len({inside[name]["lr_scale"] for name in inside}) > 4
    assert {name: inside[name]["lr_scale"] for name in inside} == {name: plain[name]["lr_scale"] for name in inside}
    assert {group["lr_scale"] for name, group in dense.items() if not name.startswith(model.network_prefix)} == {1.0}
    assert {inside[name]["weight_decay"] == plain[name]["weight_decay"] for name in inside} == {True}
