"""Real processes taking turns; what cannot be measured is said and holds nobody up."""

import os
import signal

import pytest
import torch

from foveate.errors import UserError
from foveate.speed.ceilings import Ceilings, best, measure_ceilings
from foveate.speed.rounds import Worker, measure
from foveate.speed.subject import Case, Subject


def case(model: str = "fvit_tiny", **options) -> Case:
    return Case(model, batch=2, size=32, threads=1, **options)


def test_every_case_is_measured_in_every_round() -> None:
    said: list[str] = []
    found, problems, ceilings = measure([case(), case(mode="train"), case("t2t_vit_7", form="eager")], 2, said.append)
    assert not problems
    assert [one.case for one in found] == [case(), case(mode="train"), case("t2t_vit_7")]
    for one in found:
        assert len(one.rounds) == 2 and all(second > 0 for seconds in one.rounds for second in seconds)
        assert one.peak_bytes > 2**20 and one.facts.macs > 10**6
    assert found[0].facts.parameters == 13_982_440
    assert ceilings.macs_per_second > 0
    turns = [line for line in said if "round" in line]
    assert [line.split(",")[0] for line in turns] == ["fvit_tiny", "fvit_tiny", "t2t_vit_7"] * 2


def test_a_case_that_fails_is_named_and_the_others_are_measured() -> None:
    found, problems, _ = measure([case("resnet_of_nobody"), case()], 1, lambda _: None)
    assert [one.case.model for one in found] == ["fvit_tiny"]
    assert len(problems) == 1 and "resnet_of_nobody" in problems[0]


def test_a_process_that_dies_is_a_clear_line() -> None:
    with Worker(case()) as worker:
        worker.ask("facts")
        os.kill(worker.process.pid, signal.SIGKILL)
        with pytest.raises(UserError, match=r"fvit_tiny, eager: its process died .*memory.*smaller"):
            worker.ask("round")


def test_a_training_subject_learns_and_an_optimized_one_says_what_was_done() -> None:
    threads = torch.get_num_threads()
    try:
        subject = Subject(case(mode="train"))
        before = subject.model.head.weight.detach().clone()
        subject.round()
        assert not torch.equal(subject.model.head.weight, before)
    finally:
        torch.set_num_threads(threads)


def test_ceilings_are_the_best_of_what_was_measured() -> None:
    measured = measure_ceilings("float32", "cpu")
    assert measured.macs_per_second > 1e8 and measured.bytes_per_second > 1e8
    assert best([Ceilings(1.0, 4.0), Ceilings(2.0, 3.0)]) == Ceilings(2.0, 4.0)
