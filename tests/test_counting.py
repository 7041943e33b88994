"""Counting against closed forms, and against the published sizes of well-known models."""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from foveate.counting import count_macs, count_moved, count_parameters
from foveate.factory import create_model


class Attention(nn.Module):
    """One attention of T tokens of width D with h heads, after a linear to q, k and v."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.table = nn.Parameter(torch.zeros(7, 11), requires_grad=False)

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return functional.scaled_dot_product_attention(q, k, v)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_attention_and_linear_are_counted(device):
    with torch.device(device):
        model = Attention(24, 3)
    tokens = 5 * 9
    assert count_macs(model, (5, 9), in_chans=24) == tokens * 24 * 72 + 2 * tokens**2 * 24


@pytest.mark.parametrize(("groups", "stride"), [(1, 1), (4, 2)])
def test_convolutions_are_counted_by_group_and_stride(groups, stride):
    model = nn.Conv2d(8, 12, 3, stride, padding=1, groups=groups)
    assert count_macs(model, (16, 10), in_chans=8) == (16 // stride) * (10 // stride) * 12 * (8 // groups) * 9


def test_frozen_tables_are_parameters_and_running_means_are_not():
    model = nn.Sequential(Attention(4, 2), nn.BatchNorm2d(4))
    assert count_parameters(model) == (12 * 4 + 12) + 77 + 8
    assert count_parameters(model, trainable_only=True) == count_parameters(model) - 77


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    count_macs(model, (8, 8))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# He et al. 2015 and Touvron et al. 2021 as timm builds them.
@pytest.mark.parametrize(("name", "parameters", "gmacs"), [("resnet18", 11_689_512, 1.814), ("deit_tiny_patch16_224", 5_717_416, 1.258)])
def test_known_models(name, parameters, gmacs):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert count_parameters(model) == parameters
    assert count_macs(model) / 1e9 == pytest.approx(gmacs, rel=0.01)


def test_twice_the_area_costs_twice_the_work_without_attention():
    with torch.device("meta"):
        model = create_model("fvit_tiny", num_classes=0, widths=(16, 32, 32, 32), depths=(1, 1, 1, 1), mixer="convolution")
    assert count_macs(model, (64, 128)) == 2 * count_macs(model, (64, 64))


def test_the_making_of_gabor_kernels_is_counted_until_they_are_baked():
    model = create_model("fvit_tiny", widths=(8, 16, 24, 32), depths=(1, 2, 1, 1), stem_width=8)
    made = 13 * 9 * (8 + 2 * 16 + 24 + 32)
    free = create_model("fvit_tiny", widths=(8, 16, 24, 32), depths=(1, 2, 1, 1), stem_width=8, mixer="convolution")
    assert count_macs(model, (64, 64)) - count_macs(free, (64, 64)) == made
    assert count_macs(model.bake(), (64, 64)) == count_macs(free, (64, 64))


def test_every_operation_moves_what_it_is_given_and_what_it_makes():
    model = nn.Sequential(nn.Conv2d(3, 5, 3, 2, padding=1), nn.ReLU())
    weights, entering, leaving = 5 * 27 + 5, 3 * 8 * 6, 5 * 4 * 3
    assert count_moved(model, (8, 6)) == weights + entering + leaving + 2 * leaving
    assert count_moved(model, (8, 6), batch=7) == weights + 7 * (entering + leaving + 2 * leaving)


class Rearranged(nn.Module):
    """Views of a map, added to a number for every channel."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(4))

    def forward(self, x):
        return x.permute(0, 2, 3, 1).flatten(1, 2)[:, 1:] + self.shift.expand(2, 8, 4)


def test_views_cost_nothing_and_what_is_expanded_is_read_once():
    assert count_moved(Rearranged(), (3, 3), in_chans=4, batch=2) == 2 * 2 * 8 * 4 + 4


def test_a_product_without_bias_is_read_and_written_once():
    assert count_moved(nn.Linear(8, 3, bias=False), (5, 8), in_chans=7, batch=2) == 2 * 7 * 5 * (8 + 3) + 3 * 8


def test_what_is_overwritten_is_not_read():
    model = Rearranged()
    model.forward = lambda x: torch.empty(x.shape).copy_(x).zero_()
    assert count_moved(model, (5, 8), in_chans=4) == 3 * 4 * 5 * 8


def test_counting_what_is_moved_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert count_moved(model, (8, 8)) > 0
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
