import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveate.tasks.schedule import make_schedule, peak_learning_rate, progress
from foveate.tasks.settings import TrainSettings

PAPER = TrainSettings(epochs=300, cooldown_epochs=10, warmup_epochs=20, lr=1e-3, min_lr=1e-5, warmup_lr=1e-7)


def test_published_schedule_by_hand():
    schedule = make_schedule(PAPER, 512)
    at = lambda epoch: schedule.learning_rate(epoch / 310)  # noqa: E731
    assert at(0) == 1e-7
    assert at(10) == pytest.approx((1e-7 + 1e-3) / 2)
    assert at(150) == pytest.approx((1e-3 + 1e-5) / 2)
    assert at(20) == pytest.approx(1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi * 20 / 300)) / 2)
    assert at(300) == at(305) == at(310) == 1e-5


@given(p=st.floats(0, 1), warmup=st.floats(0, 20), cooldown=st.integers(0, 20), batch=st.integers(1, 8192))
def test_rate_stays_between_its_ends_and_falls_after_the_warmup(p, warmup, cooldown, batch):
    schedule = make_schedule(replace(PAPER, warmup_epochs=warmup, cooldown_epochs=cooldown), batch)
    rate = schedule.learning_rate(p)
    assert min(schedule.start, schedule.floor) <= rate <= schedule.peak * (1 + 1e-12)
    if p >= schedule.warmup:
        assert schedule.learning_rate(min(1.0, p + 0.01)) <= rate
    assert schedule.learning_rate(1.0) == schedule.floor


def test_rate_is_linear_in_the_pictures_of_an_update():
    assert peak_learning_rate(PAPER, 512) == 1e-3
    assert peak_learning_rate(PAPER, 128) == pytest.approx(2.5e-4)
    assert peak_learning_rate(replace(PAPER, lr_reference_batch=0, lr=0.05), 128) == 0.05


def test_tiny_batch_pulls_the_floor_down_with_the_peak():
    schedule = make_schedule(PAPER, 2)
    assert schedule.peak == schedule.floor == pytest.approx(1e-3 * 2 / 512)


def test_clock_overtakes_steps():
    assert progress(10, 100, minutes=0.0, max_minutes=0.0) == 0.1
    assert progress(10, 100, minutes=3.0, max_minutes=6.0) == 0.5
    assert progress(60, 100, minutes=3.0, max_minutes=6.0) == 0.6
    assert progress(10, 100, minutes=7.0, max_minutes=6.0) == 1.0


def test_poly_is_a_power_of_what_is_left() -> None:
    settings = replace(PAPER, epochs=100, cooldown_epochs=0, warmup_epochs=0, schedule="poly", min_lr=0.0)
    schedule = make_schedule(settings, 512)
    assert schedule.learning_rate(0) == 1e-3
    for share in (0.1, 0.5, 0.999):
        assert schedule.learning_rate(share) == pytest.approx(1e-3 * (1 - share) ** 0.9)
    assert schedule.learning_rate(1) == 0
    with_ends = make_schedule(replace(settings, cooldown_epochs=25, min_lr=1e-4, warmup_epochs=10), 512)
    assert with_ends.learning_rate(0.4) == pytest.approx(1e-4 + 9e-4 * 0.5**0.9), "40 of the 80% before the cool-down"
    assert with_ends.learning_rate(0.8) == with_ends.learning_rate(0.9) == 1e-4
    assert with_ends.learning_rate(0.04) == pytest.approx((1e-7 + 1e-3) / 2), "half of the warm-up"


@given(per_epoch=st.integers(1, 5000), epochs=st.integers(12, 40))
def test_steps_fall_to_a_tenth_at_the_first_update_after_each_epoch_named(per_epoch: int, epochs: int) -> None:
    schedule = make_schedule(replace(PAPER, epochs=epochs, cooldown_epochs=0, warmup_epochs=0, schedule="steps", step_epochs=[8, 11]), 512)
    total = epochs * per_epoch

    def rate(step: int) -> float:
        return schedule.learning_rate(progress(step, total, 0.0, 0.0))

    assert rate(0) == rate(8 * per_epoch - 1) == 1e-3
    assert rate(8 * per_epoch) == rate(11 * per_epoch - 1) == pytest.approx(1e-4)
    assert rate(11 * per_epoch) == rate(total) == pytest.approx(1e-5)


def test_steps_have_a_warmup_like_the_others() -> None:
    settings = replace(PAPER, epochs=12, cooldown_epochs=0, warmup_epochs=1.2, schedule="steps", step_epochs=[8, 11])
    schedule = make_schedule(settings, 512)
    assert schedule.learning_rate(0.05) == pytest.approx((1e-7 + 1e-3) / 2)
    assert schedule.learning_rate(0.1) == 1e-3
