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
