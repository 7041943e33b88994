"""The device that a user names."""

import pytest
import torch

from foveate.device import accelerators, choose_device
from foveate.errors import UserError


def test_auto_is_an_accelerator_where_there_is_one() -> None:
    expected = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    assert expected is not None
    assert choose_device("auto").type == expected.type
    assert torch.ones(2, device=choose_device("auto")).sum().item() == 2


def test_a_named_device_is_that_device() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    for name in accelerators():
        assert choose_device(name) == torch.device(name)


@pytest.mark.parametrize("name", ["gpu", "abacus", "cuda:99", "cuda:-1", "", "CPU"])
def test_an_absent_device_is_named_beside_those_that_are_there(name: str) -> None:
    with pytest.raises(UserError) as caught:
        choose_device(name)
    assert str(caught.value) == f"device: found {name!r}, expected {' or '.join(['auto', 'cpu', *accelerators()])}, as on this machine"


def test_of_several_the_first_is_meant_where_no_number_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"is_available": True, "current_accelerator": torch.device("cuda"), "device_count": 2}.items():
        monkeypatch.setattr(torch.accelerator, name, lambda value=value: value)
    assert [str(choose_device(name)) for name in ("auto", "cuda", "cuda:1", "cpu")] == ["cuda:0", "cuda:0", "cuda:1", "cpu"]
    with pytest.raises(UserError, match="found 'cuda:2', expected auto or cpu or cuda:0 or cuda:1, as on this machine"):
        choose_device("cuda:2")
