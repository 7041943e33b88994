import pytest
import torch

from foveate.errors import UserError
from foveate.tasks.devices import Devices, launch, repeatable


def world_size(fabric, extra):
    return fabric.world_size + extra


def fail(fabric):
    raise UserError("found nothing, expected something")


def test_one_process_runs_here():
    assert launch(Devices("cpu"), world_size, 10) == 11


def test_users_errors_pass():
    with pytest.raises(UserError, match="found nothing"):
        launch(Devices("cpu"), fail)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_absent_devices_are_said_in_one_line():
    with pytest.raises(UserError, match=r"devices: .*") as error:
        launch(Devices("gpu"), world_size, 0)
    assert "\n" not in str(error.value)


def test_precision_follows_the_device():
    assert Devices("cpu").resolved_precision() == "fp32"
    assert Devices("cpu", precision="bf16").resolved_precision() == "bf16"
    with pytest.raises(UserError, match="fp16 without a CUDA device"):
        Devices("cpu", precision="fp16").resolved_precision()


def test_repeatable_names_the_guilty_operation_and_restores():
    before = torch.backends.cudnn.benchmark
    with pytest.raises(UserError, match="put_"), repeatable(0, deterministic=True):
        assert torch.are_deterministic_algorithms_enabled()
        torch.zeros(3).put_(torch.tensor([0]), torch.tensor([1.0]), accumulate=False)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark == before
