import io
import pickle
from collections import OrderedDict

import pytest

from foveate.weights.pickles import Call, Name, UnreadableError, read_pickle


class Made:
    """Pickles to a call with a state."""

    def __reduce__(self):
        return complex, ("7",), {"a": 1}


def read(data, allowed=()):
    return read_pickle(io.BytesIO(data), allowed)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_plain_values_are_what_pickle_makes_of_them(protocol):
    shared = [1, 2]
    value = {
        "numbers": [0, 255, 65535, -1, 2**31, -(2**70), 1.5, True, False, None],
        "text": ("a", "ä" * 300, "", ("b",), ()),
        "twice": [shared, shared],
        3: {"inner": {}},
    }
    found, persistent_ids = read(pickle.dumps(value, protocol=protocol))
    assert found == value
    assert found["twice"][0] is found["twice"][1]
    assert persistent_ids == []


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_calls_are_recorded_and_not_made(protocol):
    allowed = {"builtins.complex", "__builtin__.complex"}
    found, _ = read(pickle.dumps({"x": Made(), "class": complex}, protocol=protocol), allowed)
    name = "builtins.complex" if protocol > 2 else "__builtin__.complex"
    assert found == {"x": Call(name, ("7",), {"a": 1}), "class": Name(name)}


def test_ordered_dictionary_is_a_dictionary_and_its_attributes_go():
    state = OrderedDict(a=1, b=2)
    state._metadata = OrderedDict(version=1)
    found, _ = read(pickle.dumps(state, protocol=2), {"collections.OrderedDict"})
    assert found == {"a": 1, "b": 2}
    assert type(found) is dict


def test_stands_behind_the_pickle_afterwards():
    stream = io.BytesIO(pickle.dumps([1], protocol=2) + pickle.dumps("next", protocol=2) + b"rest")
    assert [read_pickle(stream, ())[0], read_pickle(stream, ())[0]] == [[1], "next"]
    assert stream.read() == b"rest"


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_other_names_are_refused_before_anything_else(protocol):
    with pytest.raises(UnreadableError, match="complex'"):
        read(pickle.dumps({"x": Made()}, protocol=protocol), {"builtins.str"})


@pytest.mark.parametrize("operations", [b"}(K\x01", b")}s.", b"(.", b"u.", b"h\x05.", b"K\x01K\x02b.", b"K\x01K\x02a.", b"K\x01)R.", b"."])
def test_broken_pickles_are_refused(operations):
    with pytest.raises(UnreadableError):
        read(b"\x80\x02" + operations)
