import pickle

import numpy as np
import pytest
import torch

from foveate.errors import UserError
from foveate.weights.paddle_files import paddle_pickle
from foveate.weights.readers import read_weights

NUMPY_1, NUMPY_2 = "numpy.core.multiarray", "numpy._core.multiarray"


def turned(arrays):
    """As Paddle stores them: matrices that are weights (in x out), the square one too, nothing else."""
    return {name: np.ascontiguousarray(a.T) if name in ("fc.weight", "head.weight") else a for name, a in arrays.items()}


def assert_equal(found, arrays):
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].numpy().dtype == array.dtype
        np.testing.assert_array_equal(found[name].numpy(), array)


@pytest.mark.parametrize("module", [NUMPY_1, NUMPY_2])
@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_reads_every_protocol_of_both_numpys(tmp_path, arrays, numpy_pickle, protocol, module):
    path = tmp_path / "model.pdparams"
    path.write_bytes(numpy_pickle(turned(arrays), protocol, module))
    # The hand-made file is what numpy itself reads, so that it stands for real ones.
    assert_equal({name: torch.from_numpy(np.array(a)) for name, a in pickle.loads(path.read_bytes()).items()}, turned(arrays))
    file = read_weights(path)
    assert (file.layout, file.source, file.card) == ("paddle", "bare", None)
    assert_equal(file.tensors, arrays)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_reads_what_this_numpy_writes(tmp_path, arrays, protocol):
    path = tmp_path / "model.pdparams"
    stored = turned(arrays) | {"StructuredToParameterName@@": {"fc.weight": "linear_0.w_0"}}
    path.write_bytes(pickle.dumps(stored, protocol=protocol))
    file = read_weights(path)
    assert_equal(file.tensors, arrays)
    assert file.dropped == ()  # Paddle's own table is no loss


def test_reads_column_order_other_types_and_other_byte_orders(tmp_path):
    arrays = {
        "columns": np.asfortranarray(np.arange(6, dtype="f4").reshape(2, 3)),
        "big": np.arange(4, dtype=">f4"),
        "half": np.arange(4, dtype="f2"),
        "flags": np.array([True, False]),
    }
    (tmp_path / "m.pdparams").write_bytes(pickle.dumps(arrays, protocol=4))
    found = read_weights(tmp_path / "m.pdparams").tensors
    assert {name: t.dtype for name, t in found.items()} == {
        "columns": torch.float32,
        "big": torch.float32,
        "half": torch.float16,
        "flags": torch.bool,
    }
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name].numpy(), array)


def test_tensors_may_be_changed(tmp_path, arrays):
    (tmp_path / "m.pdparams").write_bytes(pickle.dumps(arrays, protocol=4))
    file = read_weights(tmp_path / "m.pdparams")
    file.tensors["norm.bias"].zero_()
    assert read_weights(tmp_path / "m.pdparams").tensors["norm.bias"].any()


@pytest.mark.parametrize("array", [np.array([None, 1], dtype=object), np.array(["text"]), np.array([1 + 2j]), np.zeros(2, "f4,f4")])
def test_refuses_arrays_of_other_things_than_numbers(tmp_path, array):
    (tmp_path / "m.pdparams").write_bytes(pickle.dumps({"w": array}, protocol=4))
    with pytest.raises(UserError, match="'w'"):
        read_weights(tmp_path / "m.pdparams")


def test_written_pickle_is_plain_numpy_with_the_names_of_numpy_1(tensors, arrays):
    data = b"".join(paddle_pickle(tensors))
    assert b"numpy._core" not in data
    found = pickle.loads(data)
    assert list(found) == list(arrays)
    for name, array in turned(arrays).items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
