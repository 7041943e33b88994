import argparse
import warnings
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from foveate.errors import UserError
from foveate.weights.readers import read_weights

WRAPPINGS = {
    "bare": lambda state: state,
    "model": lambda state: {"model": state, "args": argparse.Namespace(lr=0.1, drop=None, sizes=[1, 2]), "epoch": 3},
    "state_dict": lambda state: {"epoch": 300, "arch": "t2t_vit_14", "state_dict": state, "metric": np.float64(0.8)},
    "state_dict_ema": lambda state: {"state_dict": {name: 0 * tensor for name, tensor in state.items()}, "state_dict_ema": state},
    "state_dict without average": lambda state: {"state_dict_ema": None, "state_dict": state, "best": np.float32(81.5)},
    "model.state_dict": lambda state: {"model": {"state_dict": state, "version": 2}},
}


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("prefix", ["", "module.", "module.module."])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_reads_every_wrapping(tmp_path, tensors, wrapping, prefix, new):
    path = tmp_path / "model.pth.tar"
    state = OrderedDict((prefix + name, tensor) for name, tensor in tensors.items())
    torch.save(WRAPPINGS[wrapping](state), path, _use_new_zipfile_serialization=new)
    file = read_weights(path)
    assert (file.layout, file.source, file.card, file.dropped) == ("torch", wrapping.split()[0], None, ())
    assert_same(file.tensors, tensors)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_reads_a_training_checkpoint_with_its_optimiser(tmp_path, new):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 3, 5, 5)).sum().backward()
    optimizer.step()
    torch.save(
        {"state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "m.pth", _use_new_zipfile_serialization=new
    )
    assert_same(read_weights(tmp_path / "m.pth").tensors, model.state_dict())


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_reads_views_parameters_expanded_empty_and_every_type(tmp_path, new):
    base = torch.arange(24.0)
    tensors = {
        "slice": base[3:9],
        "turned": base.view(4, 6).t(),
        "every other": base[::2],
        "expanded": torch.arange(3.0)[None, :, None].expand(1, 3, 3),
        "scalar": torch.tensor(5),
        "empty": torch.empty(0, 4),
        **{str(dtype): base.to(dtype) for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.int16, torch.uint8)},
        "flags": base > 5,
    }
    stored = {**tensors, "parameter": nn.Parameter(base)}
    torch.save(stored, tmp_path / "m.pth", _use_new_zipfile_serialization=new)
    assert_same(read_weights(tmp_path / "m.pth").tensors, {**tensors, "parameter": base})


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_reads_other_pickle_protocols(tmp_path, tensors, protocol):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(tensors, tmp_path / "m.pth", pickle_protocol=protocol)
    assert_same(read_weights(tmp_path / "m.pth").tensors, tensors)


def test_names_what_stands_beside_the_tensors(tmp_path, tensors):
    torch.save({**tensors, "epoch": 3, "arch": "vit"}, tmp_path / "m.pth")
    assert read_weights(tmp_path / "m.pth").dropped == ("epoch", "arch")


def test_the_name_of_a_file_does_not_matter(tmp_path, tensors):
    torch.save(tensors, tmp_path / "model.pdparams")
    file = read_weights(tmp_path / "model.pdparams")
    assert file.layout == "torch"
    assert_same(file.tensors, tensors)


@pytest.mark.parametrize("content", [{"epoch": 1, "lr": 0.1}, [1, 2], {}, {"state_dict": {}}, 5])
def test_says_what_it_found_where_there_are_no_tensors(tmp_path, content):
    torch.save(content, tmp_path / "m.pth")
    with pytest.raises(UserError, match="expected a dictionary of tensors"):
        read_weights(tmp_path / "m.pth")


def test_refuses_a_whole_module_and_a_program(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(UserError, match=r"torch\.nn\.modules\.linear\.Linear"):
        read_weights(tmp_path / "module.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "script.pt")
    with pytest.raises(UserError, match="TorchScript"):
        read_weights(tmp_path / "script.pt")
