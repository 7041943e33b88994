from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foveate.tasks.mixing import Mixing, mix, soft_targets

RULES = Mixing(num_classes=7, mixup=0.8, cutmix=1.0, switch=0.5, smoothing=0.1)


def batch_of(size, height=12, width=9):
    """Picture i is filled with the number i, so that every pixel tells where it came from."""
    images = torch.arange(size, dtype=torch.float32)[:, None, None, None].expand(size, 3, height, width).clone()
    return images, torch.arange(size) % RULES.num_classes


@given(size=st.integers(1, 9), seed=st.integers(0, 2**32), height=st.integers(1, 20), width=st.integers(1, 20))
def test_targets_say_what_the_pixels_are(size, seed, height, width):
    images, labels = batch_of(size, height, width)
    mixed, targets = mix(images, labels, replace(RULES, smoothing=0.0), np.random.default_rng(seed))
    assert mixed.shape == images.shape
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(size))
    for index in range(size):
        partner = size - 1 - index
        if labels[index] != labels[partner]:
            share = targets[index, labels[index]].item()
            expected = share * index + (1 - share) * partner
            assert mixed[index].mean().item() == pytest.approx(expected, abs=1e-3)


def test_cutmix_pixels_are_whole_and_mixup_pixels_are_not():
    images, labels = batch_of(2)
    cut, _ = mix(images, labels, replace(RULES, mixup=0.0), np.random.default_rng(1))
    assert set(cut.unique().tolist()) == {0.0, 1.0}
    blended, _ = mix(images, labels, replace(RULES, cutmix=0.0), np.random.default_rng(1))
    assert len(blended[0].unique()) == 1
    assert 0 < blended[0, 0, 0, 0] < 1


def test_switch_chooses_between_both():
    images, labels = batch_of(2)
    kinds = [len(mix(images, labels, RULES, np.random.default_rng(seed))[0][0].unique()) for seed in range(300)]
    assert 0.3 < sum(kind == 1 for kind in kinds) / 300 < 0.7


def test_same_generator_same_batch_and_the_input_is_untouched():
    images, labels = batch_of(6)
    before = images.clone()
    first, second = (mix(images, labels, RULES, np.random.default_rng(5)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert torch.equal(images, before)


def test_without_mixing_pictures_pass_and_smoothing_is_spread():
    images, labels = batch_of(4)
    plain, targets = mix(images, labels, Mixing(7, smoothing=0.1), np.random.default_rng(0))
    assert plain is images
    assert torch.equal(targets, soft_targets(labels, RULES))
    assert targets[0, 0].item() == pytest.approx(0.9 + 0.1 / 7)
    assert targets[0, 1].item() == pytest.approx(0.1 / 7)
