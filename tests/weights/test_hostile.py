"""Files that mean harm, and files that are broken: one line, at once, nothing run, no memory taken."""

import _codecs
import io
import os
import pickle
import random
import resource
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from foveate.errors import UserError
from foveate.weights.readers import read_weights

SPARE = 512 * 2**20  # bytes that a refusal may not need: far below the lie, far above what Python takes for its own
LIE = 25 * 10**9  # 100 GB of float32
MARKER = Path("/tmp") / f"foveate-hostile-{os.getpid()}"
BIG = b"\x8a\x05" + LIE.to_bytes(5, "little")  # the lie as a pickled number


class Attack:
    """Pickles to a call of `function`."""

    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


def touch():
    return Attack(os.system, f"touch {MARKER}")


def torch_bytes(content, new=True):
    out = io.BytesIO()
    torch.save(content, out, _use_new_zipfile_serialization=new)
    return out.getvalue()


def rewritten_zip(change, **options):
    """A torch file of four numbers, its pickle passed through `change`."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(torch_bytes({"w": torch.zeros(4)}))) as source, zipfile.ZipFile(out, "w", **options) as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, change(data) if name.endswith("data.pkl") else data)
    return out.getvalue()


def swap(old, new):
    def change(data):
        assert old in data
        return data.replace(old, new)

    return change


def lying_entry_size():
    """The central directory's last size fields say 100 GB by zip64; here 4 GB, the most that plain fields hold."""
    data = bytearray(torch_bytes({"w": torch.zeros(4)}))
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 20 : entry + 28] = struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0)
    return bytes(data)


def self_wrapped():
    wrapped = {}
    wrapped["model"] = wrapped
    return torch_bytes(wrapped)


def hex_chain():
    value = Attack(_codecs.encode, "ab", "latin1")
    for _ in range(34):
        value = Attack(_codecs.encode, value, "hex")
    return value


def endless_key():
    """A dictionary whose key is a pair of the same pair of the same pair ..., 60 deep: 2^60 steps to hash."""
    pairs = (pickle.BINPUT + b"\x00" + pickle.BINGET + b"\x00" + pickle.TUPLE2) * 60
    return pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + pickle.EMPTY_TUPLE + pairs + pickle.NONE + pickle.SETITEM + pickle.STOP


def safetensors_with(length, header=b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'):
    return struct.pack("<Q", length) + header + bytes(16)


def numpy_file(shape, data=b"\0" * 16):
    """An array as numpy pickles it, its shape replaced in the opcodes: (4,) becomes the lie."""
    pickled = pickle.dumps({"w": np.frombuffer(data, "f4")}, protocol=2)
    assert pickled.count(b"K\x04\x85") == 1
    return pickled.replace(b"K\x04\x85", shape + b"\x85")


LEGACY_LIE = torch_bytes({"w": torch.zeros(4)}, new=False)
HOSTILE = {
    "torch runs a command": lambda: torch_bytes({"state_dict": touch()}),
    "torch legacy runs a command": lambda: torch_bytes({"state_dict": touch()}, new=False),
    "torch evaluates": lambda: torch_bytes({"w": Attack(eval, "1 + 1")}),
    "torch takes 100 GB for a bytearray": lambda: torch_bytes({"w": Attack(bytearray, 10**11)}),
    "torch takes 100 GB for a tensor": lambda: torch_bytes({"w": Attack(torch.FloatTensor, LIE)}),
    "torch lies in number and size": lambda: rewritten_zip(lambda d: swap(b"K\x04\x85", BIG + b"\x85")(swap(b"K\x04tq", BIG + b"tq")(d))),
    "torch lies in size": lambda: rewritten_zip(swap(b"K\x04\x85", BIG + b"\x85")),
    "torch lies a little": lambda: rewritten_zip(swap(b"K\x04\x85", b"K\x64\x85")),
    "torch repeats one number": lambda: torch_bytes({"w": torch.zeros(1).expand(LIE)}),
    "torch starts behind its storage": lambda: rewritten_zip(swap(b"K\x00K\x04\x85", BIG + b"K\x04\x85")),
    "torch names a storage that is not there": lambda: rewritten_zip(swap(b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x009")),
    "torch entry lies in size": lying_entry_size,
    "torch zip is packed": lambda: rewritten_zip(lambda d: d, compression=zipfile.ZIP_DEFLATED),
    "torch wraps itself": self_wrapped,
    "torch legacy lies in number and size": lambda: swap(b"K\x04\x85", BIG + b"\x85")(swap(b"K\x04Nt", BIG + b"Nt")(LEGACY_LIE)),
    "torch legacy storage lies": lambda: swap(struct.pack("<q", 4) + bytes(16), struct.pack("<q", LIE) + bytes(16))(LEGACY_LIE),
    "torch legacy storage is negative": lambda: swap(struct.pack("<q", 4) + bytes(16), struct.pack("<q", -4) + bytes(16))(LEGACY_LIE),
    **{f"paddle runs a command, protocol {p}": lambda p=p: pickle.dumps({"w": touch()}, protocol=p) for p in (2, 3, 4)},
    "paddle runs a command behind good weights": lambda: pickle.dumps({"w": np.ones(3), "x": touch()}, protocol=4),
    "paddle evaluates": lambda: pickle.dumps({"w": Attack(eval, "1 + 1")}, protocol=4),
    "paddle chains codecs": lambda: pickle.dumps({"w": hex_chain()}, protocol=2),
    "paddle lies in shape": lambda: numpy_file(BIG),
    "paddle shape is negative": lambda: numpy_file(b"J" + struct.pack("<i", -4)),
    "paddle bytes lie": lambda: pickle.PROTO + b"\x04" + pickle.BINBYTES8 + struct.pack("<Q", 10**11) + b"x.",
    "paddle frame lies": lambda: pickle.PROTO + b"\x04" + pickle.FRAME + struct.pack("<Q", 10**11) + b"N.",
    "paddle memo lies": lambda: pickle.PROTO + b"\x02N" + pickle.LONG_BINPUT + b"\xff\xff\xff\x7f" + b".",
    "paddle key takes for ever": endless_key,
    "paddle never ends": lambda: pickle.PROTO + b"\x02" + b"N" * 5_000_000 + b".",
    "paddle takes what it has not": lambda: pickle.PROTO + b"\x02" + pickle.REDUCE + b".",
    "paddle nests": lambda: pickle.PROTO + b"\x02" + b"]" * 400_000 + pickle.MARK + pickle.TUPLE + b".",
    "safetensors header lies": lambda: safetensors_with(10**11),
    "safetensors shape lies": lambda: safetensors_with(67, b'{"w":{"dtype":"F32","shape":[25000000000],"data_offsets":[0,16]}}  '),
    "safetensors offsets lie": lambda: safetensors_with(67, b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,100000000000]}}  '),
    "name breaks the line": lambda: pickle.dumps({"a\nb\x1b[31m": np.ones(2)}, protocol=4),
    "global breaks the line": lambda: pickle.PROTO + b"\x04\x8c\x03a\nb\x8c\x03\x1b[3\x93.",
    "empty": lambda: b"",
    "text": lambda: b"epoch,loss\n1,0.5\n",
    "web page": lambda: b"<!DOCTYPE html><html></html>",
    "pointer": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 17\n",
    "tar": lambda: bytes(257) + b"ustar\x0000" + bytes(512),
    "some zip": lambda: rewritten_zip(lambda d: d).replace(b"data.pkl", b"data.txt"),
    "noise": lambda: random.Random(0).randbytes(5000),
    "picture": lambda: b"\x89PNG\r\n\x1a\n" + bytes(100),
}


@pytest.fixture
def refused():
    """Reads a file that must be refused, with little memory to spare; the line, and the seconds of one core that it took."""

    def read(path):
        before = resource.getrlimit(resource.RLIMIT_AS)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + SPARE, before[1]))
        start = time.process_time()
        try:
            with pytest.raises(UserError) as error:
                read_weights(path)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
        return str(error.value), time.process_time() - start

    yield read
    MARKER.unlink(missing_ok=True)


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_file_is_refused_at_once_in_one_line(tmp_path, refused, kind):
    path = tmp_path / "weights.pth"
    path.write_bytes(HOSTILE[kind]())
    line, seconds = refused(path)
    assert line.startswith(str(path))
    assert line.isprintable()
    assert len(line) < 400 + len(str(path))
    assert seconds < 1
    assert not MARKER.exists()


def test_a_command_is_named(tmp_path, refused):
    (tmp_path / "w").write_bytes(HOSTILE["torch runs a command"]())
    assert f"asks for '{os.system.__module__}.system'" in refused(tmp_path / "w")[0]


def test_missing_folder_and_device_are_refused(tmp_path, refused):
    assert "no such file" in refused(tmp_path / "none.pth")[0]
    assert "folder" in refused(tmp_path)[0]
    assert "device" in refused(Path("/dev/zero"))[0]


def valid(kind, tensors, arrays):
    return {
        "torch": lambda: torch_bytes({"state_dict": tensors}),
        "legacy": lambda: torch_bytes({"state_dict": tensors}, new=False),
        "paddle": lambda: pickle.dumps(arrays, protocol=4),
        "safetensors": lambda: save(tensors, metadata={"foveate": '{"model": "t2t_vit_7", "num_classes": 3}'}),
    }[kind]()


@pytest.mark.parametrize("kind", ["torch", "legacy", "paddle", "safetensors"])
def test_a_file_cut_anywhere_is_refused(tmp_path, tensors, arrays, kind):
    data = valid(kind, tensors, arrays)
    path = tmp_path / "w"
    path.write_bytes(data)
    read_weights(path)
    for length in random.Random(1).sample(range(len(data)), 80):
        path.write_bytes(data[:length])
        with pytest.raises(UserError):
            read_weights(path)


@pytest.mark.parametrize("kind", ["torch", "legacy", "paddle", "safetensors"])
def test_a_damaged_file_is_read_or_refused_but_never_raises_anything_else(tmp_path, tensors, arrays, kind):
    data = valid(kind, tensors, arrays)
    path = tmp_path / "w"
    chance = random.Random(2)
    refusals = 0
    for _ in range(200):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            read_weights(path)
        except UserError as error:
            refusals += 1
            assert str(error).isprintable()
    assert refusals > 10
