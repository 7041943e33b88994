import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from foveate.card import ModelCard, Preprocessing
from foveate.errors import UserError
from foveate.factory import create_model
from foveate.opening import read_card
from foveate.weights import readers
from foveate.weights.load import load_weights
from foveate.weights.readers import read_stored_card, read_weights
from foveate.weights.save import write_paddle, write_safetensors

CARD = ModelCard(
    "t2t_vit_7",
    3,
    in_chans=1,
    options={"small_images": True},
    class_names=("a", "ü", "c\nd"),
    preprocessing=Preprocessing((40, 56), 64, "bilinear", (0.5,), (0.25,)),
    results={"top1": 0.97},
)


def test_card_and_tensors_come_back(tmp_path, tensors):
    write_safetensors(tmp_path / "m.safetensors", tensors, CARD)
    file = read_weights(tmp_path / "m.safetensors")
    assert (file.card, file.layout, file.source) == (CARD, "safetensors", "bare")
    assert file.tensors.keys() == tensors.keys()
    assert all(torch.equal(file.tensors[name], tensor) for name, tensor in tensors.items())


def test_the_file_is_an_ordinary_safetensors(tmp_path, tensors):
    write_safetensors(tmp_path / "m.safetensors", tensors, CARD)
    assert load_file(tmp_path / "m.safetensors").keys() == tensors.keys()
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        assert file.metadata()["format"] == "pt"


def test_shared_memory_views_and_parameters_are_stored_whole(tmp_path):
    base = torch.arange(12.0)
    tensors = {
        "all": base,
        "same": base,
        "part": base[2:5],
        "turned": base.view(3, 4).t(),
        "expanded": torch.ones(1).expand(3),
        "learnt": torch.nn.Parameter(base.view(3, 4)),
        "bf16": base.bfloat16(),
    }
    write_safetensors(tmp_path / "m.safetensors", tensors, CARD)
    found = read_weights(tmp_path / "m.safetensors").tensors
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_foreign_safetensors_have_no_card_and_a_damaged_card_is_refused(tmp_path, tensors):
    from safetensors.torch import save_file

    save_file(tensors, tmp_path / "foreign.safetensors", metadata={"format": "pt"})
    assert read_weights(tmp_path / "foreign.safetensors").card is None
    for text in ("{", '{"model": "x", "colour": 1}', "[1]", "[" * 100_000):
        save_file(tensors, tmp_path / "damaged.safetensors", metadata={"foveate": text})
        with pytest.raises(UserError, match=r"damaged\.safetensors"):
            read_weights(tmp_path / "damaged.safetensors")


def test_the_card_is_read_without_the_weights(tmp_path, tensors, monkeypatch):
    from safetensors.torch import save_file

    class HeaderOnly:
        """A file whose tensors cannot be read."""

        def __init__(self, path, framework):
            self.file = safe_open(path, framework=framework)

        def __enter__(self):
            self.opened = self.file.__enter__()
            return self

        def __exit__(self, *error):
            return self.file.__exit__(*error)

        def metadata(self):
            return self.opened.metadata()

    monkeypatch.setattr(readers, "safe_open", HeaderOnly)
    write_safetensors(tmp_path / "m.safetensors", tensors, CARD)
    assert read_stored_card(tmp_path / "m.safetensors") == read_card(tmp_path / "m.safetensors") == CARD
    save_file(tensors, tmp_path / "foreign.safetensors")
    torch.save(tensors, tmp_path / "foreign.pth")
    for name in ("foreign.safetensors", "foreign.pth"):
        assert read_stored_card(tmp_path / name) is None
        with pytest.raises(UserError, match=f"{name}: found weights without a model card"):
            read_card(tmp_path / name)


def test_a_header_that_cannot_be_read_is_one_line(tmp_path, tensors):
    write_safetensors(tmp_path / "m.safetensors", tensors, CARD)
    whole = (tmp_path / "m.safetensors").read_bytes()
    for content, message in (
        (whole[:-9], "damaged"),
        (b"", "an empty file"),
        (whole.replace(b"num_classes", b"sum_classes"), "model card"),
    ):
        (tmp_path / "m.safetensors").write_bytes(content)
        with pytest.raises(UserError, match=rf"m\.safetensors: .*{message}") as error:
            read_stored_card(tmp_path / "m.safetensors")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("write", [lambda path, t: write_safetensors(path, t, CARD), write_paddle], ids=["safetensors", "paddle"])
def test_a_file_appears_whole_or_not_at_all(tmp_path, tensors, write):
    path = tmp_path / "model"
    path.write_bytes(b"old")

    class Interrupted(Exception):  # noqa: N818
        pass

    class Failing(torch.Tensor):
        def detach(self):
            raise Interrupted

    with pytest.raises(Interrupted):
        write(path, {**tensors, "z": torch.ones(2).as_subclass(Failing)})
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
    assert path.read_bytes() == b"old"
    write(path, tensors)
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
    assert read_weights(path).tensors.keys() == tensors.keys()
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask()


def umask():
    value = os.umask(0)
    os.umask(value)
    return value


def test_a_folder_that_is_not_there_is_one_line(tmp_path, tensors):
    for write in (lambda path: write_safetensors(path, tensors, CARD), lambda path: write_paddle(path, tensors)):
        with pytest.raises(UserError, match="folder that exists"):
            write(tmp_path / "none" / "model")


def equal(one, other):
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], tensor) for name, tensor in second.items())


@pytest.mark.parametrize(
    "name", ["t2t_vit_7", "t2t_vit_t_14", "t2t_vit_c_14", "t2t_vit_14_se", "t2t_vit_16_ghost", "fvit_tiny", "fvit_tiny_dp"]
)
def test_paddle_file_of_every_kind_of_model_comes_back_to_the_bit(tmp_path, name):
    options = {"depths": (1, 1, 1, 1)} if name.startswith("fvit") else {"depth": 1}
    source, target = create_model(name, num_classes=7, **options), create_model(name, num_classes=7, **options)
    write_paddle(tmp_path / "m.pdparams", source.state_dict())
    report = load_weights(target, tmp_path / "m.pdparams")
    assert len(report.matched) == len(source.state_dict())
    assert equal(target, source)
    stored = read_weights(tmp_path / "m.pdparams").tensors
    assert ("tokens_to_token.project.weight" in stored) is name.startswith("t2t")
    assert getattr(target, "token_order", "raster") == "raster"


def test_only_weights_of_the_released_order_get_the_names_that_say_so(tmp_path):
    source = create_model("fvit_tiny_dp", depths=(1, 1, 1, 1), token_order="released")
    write_paddle(tmp_path / "m.pdparams", source.state_dict(), token_order="released")
    assert "blocks_stage1.0.attn.GaborLayer.Lambdas" in read_weights(tmp_path / "m.pdparams").tensors
    target = create_model("fvit_tiny_dp", depths=(1, 1, 1, 1))
    assert load_weights(target, tmp_path / "m.pdparams").token_order == "released"
    assert equal(target, source)


def test_numpy_cannot_hold_bfloat16(tmp_path):
    with pytest.raises(UserError, match="bfloat16"):
        write_paddle(tmp_path / "m.pdparams", {"w": torch.ones(2, dtype=torch.bfloat16)})
