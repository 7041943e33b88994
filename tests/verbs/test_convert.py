from pathlib import Path

import pytest
import torch

from foveate.card import ModelCard, Preprocessing
from foveate.errors import UserError
from foveate.factory import create_model
from foveate.opening import open_model
from foveate.verbs.convert import convert
from foveate.weights.names import layout_of_ours, to_theirs
from foveate.weights.readers import read_weights
from foveate.weights.save import write_safetensors

GOLDEN = Path(__file__).resolve().parents[2] / "../shared/golden"


def authors_file(path, name, num_classes=1000):
    """A checkpoint as the model's authors store it, and the model that it is of."""
    model = create_model(name, num_classes=num_classes)
    state = to_theirs(model.state_dict(), layout_of_ours(model.state_dict()))
    torch.save({"state_dict_ema": {f"module.{key}": tensor for key, tensor in state.items()}, "state_dict": {}}, path)
    return path, model


def equal(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("name", ["t2t_vit_7", "fvit_tiny_dp"])
def test_authors_to_ours_to_paddle_and_back_keeps_every_bit(tmp_path, name):
    source, model = authors_file(tmp_path / "source.pth.tar", name)
    report = convert(source, model=name, out=tmp_path / "a.safetensors")
    assert report.source == "state_dict_ema"
    convert(tmp_path / "a.safetensors", model=name, out=tmp_path / "b.pdparams")
    convert(tmp_path / "b.pdparams", model=name, out=tmp_path / "c.safetensors")
    assert equal(read_weights(tmp_path / "a.safetensors").tensors, model.state_dict())
    assert equal(read_weights(tmp_path / "c.safetensors").tensors, model.state_dict())
    assert read_weights(tmp_path / "c.safetensors").card == read_weights(tmp_path / "a.safetensors").card


def test_real_paddle_file_goes_round_to_the_bit(tmp_path):
    if not GOLDEN.is_dir():
        pytest.skip(f"the authors' stored outputs are not at {GOLDEN}")
    convert(GOLDEN / "t2t_vit_7.pdparams", model="t2t_vit_7", out=tmp_path / "a.safetensors")
    convert(tmp_path / "a.safetensors", model="t2t_vit_7", out=tmp_path / "b.pdparams")
    assert equal(read_weights(tmp_path / "b.pdparams").tensors, read_weights(GOLDEN / "t2t_vit_7.pdparams").tensors)


def test_card_holds_what_is_needed_to_use_the_model(tmp_path):
    source, model = authors_file(tmp_path / "source.pth", "fvit_tiny_dp", num_classes=6)
    convert(source, model="fvit_tiny_dp", out=tmp_path / "m.safetensors")
    opened, card = open_model(tmp_path / "m.safetensors")
    assert (card.model, card.num_classes, card.in_chans, card.options) == ("fvit_tiny_dp", 6, 3, {"token_order": "released"})
    assert card.preprocessing == Preprocessing((224, 224), 256, "bicubic")
    assert opened.token_order == "released"
    assert equal(opened.state_dict(), model.state_dict())
    convert(authors_file(tmp_path / "t.pth", "t2t_vit_7")[0], model="t2t_vit_7", out=tmp_path / "t.safetensors")
    card = read_weights(tmp_path / "t.safetensors").card
    assert (card.num_classes, card.options, card.preprocessing.resize) == (1000, {}, 248)


def test_the_card_of_our_file_goes_on(tmp_path):
    card = ModelCard("t2t_vit_7", 2, 1, {"small_images": True}, ("cat", "dog"), Preprocessing((32, 32), 32, "bilinear", (0.5,), (0.2,)))
    model = create_model("t2t_vit_7", num_classes=2, in_chans=1, img_size=32, small_images=True)
    write_safetensors(tmp_path / "a.safetensors", model.state_dict(), card)
    report = convert(tmp_path / "a.safetensors", model="t2t_vit_7", out=tmp_path / "b.safetensors")
    assert not (report.resized or report.fresh)
    file = read_weights(tmp_path / "b.safetensors")
    assert (file.card.class_names, file.card.preprocessing, file.card.options) == (card.class_names, card.preprocessing, card.options)
    assert equal(file.tensors, model.state_dict())


def test_another_class_count_writes_a_fresh_classifier(tmp_path):
    source, model = authors_file(tmp_path / "source.pth", "t2t_vit_7")
    report = convert(source, model="t2t_vit_7", out=tmp_path / "m.safetensors", num_classes=4)
    assert set(report.fresh) == {"head.weight", "head.bias"}
    file = read_weights(tmp_path / "m.safetensors")
    assert file.card.num_classes == 4
    assert file.tensors["head.weight"].shape == (4, 256)
    assert torch.equal(file.tensors["pos_embed"], model.pos_embed)


def test_timms_models_convert_too(tmp_path):
    model = create_model("test_resnet", num_classes=9)
    torch.save(model.state_dict(), tmp_path / "m.pth")
    convert(tmp_path / "m.pth", model="test_resnet", out=tmp_path / "m.safetensors")
    assert read_weights(tmp_path / "m.safetensors").card.num_classes == 9
    convert(tmp_path / "m.safetensors", model="test_resnet", out=tmp_path / "m.pdparams")
    assert equal(read_weights(tmp_path / "m.pdparams").tensors, model.state_dict())


@pytest.mark.parametrize("name", ["m.pth", "m", "m.safetensors.bak"])
def test_other_suffixes_are_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"\.safetensors or \.pdparams"):
        convert(tmp_path / "any.pth", model="t2t_vit_7", out=tmp_path / name)


def test_nothing_is_written_over_and_nothing_is_left_behind(tmp_path):
    source, _ = authors_file(tmp_path / "source.pth", "t2t_vit_7")
    (tmp_path / "there.safetensors").write_bytes(b"precious")
    with pytest.raises(UserError, match="exists already"):
        convert(source, model="t2t_vit_7", out=tmp_path / "there.safetensors")
    assert (tmp_path / "there.safetensors").read_bytes() == b"precious"
    with pytest.raises(UserError, match="do not fit t2t_vit_10"):
        convert(source, model="t2t_vit_10", out=tmp_path / "new.safetensors")
    with pytest.raises(UserError, match="expected a name"):
        convert(source, model="t2t_vit_700", out=tmp_path / "new.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source.pth", "there.safetensors"]
    report = convert(source, model="t2t_vit_10", out=tmp_path / "new.safetensors", allow_partial=True)
    assert report.missing
