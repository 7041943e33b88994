"""What may be done to a stem of FViT that native code is then not to take the place of."""

from typing import Any

from torch import nn


def hooked(stem: Any) -> None:
    stem.conv2.register_forward_hook(lambda *_: None)


def with_another_norm(stem: Any) -> None:
    stem.norm2 = nn.InstanceNorm2d(24, affine=True)


def without_running_tensors(stem: Any) -> None:
    stem.norm1.running_mean = stem.norm1.running_var = None


def without_a_count(stem: Any) -> None:
    stem.norm3.num_batches_tracked = None


def without_statistics(stem: Any) -> None:
    stem.norm1 = nn.BatchNorm2d(24, track_running_stats=False)


def in_float64(stem: Any) -> None:
    stem.double()


def around_a_circle(stem: Any) -> None:
    stem.conv3.padding_mode = "circular"


STEM_CHANGES = [hooked, with_another_norm, without_running_tensors, without_a_count, without_statistics, in_float64, around_a_circle]
"""For stems of 24 channels, in training or in evaluation."""
