import pytest
import timm
import torch
from torch import nn

from foveate.card import ModelCard
from foveate.errors import UserError
from foveate.factory import create_model
from foveate.weights.load import load_weights
from foveate.weights.names import LAYOUTS, to_theirs
from foveate.weights.save import write_safetensors


def small(name="t2t_vit_7", **options):
    """A model of few parameters, in evaluation mode."""
    depth = {"depth": 1} if name.startswith("t2t") else {"widths": (8, 12, 16, 24), "depths": (1, 1, 1, 1), "stem_width": 8}
    return create_model(name, **{"num_classes": 5, **depth, **options}).eval()


def randomised(model):
    """The model with every number drawn anew, tables too: what stayed as it was built would show."""
    torch.manual_seed(1)
    drawn = {name: torch.randn(t.shape) / 4 if t.is_floating_point() else t + 3 for name, t in model.state_dict().items()}
    model.load_state_dict({name: t.abs() if name.endswith("running_var") else t for name, t in drawn.items()})
    return model


def saved(path, tensors, card=None):
    if card is None:
        torch.save(dict(tensors), path)
    else:
        write_safetensors(path, tensors, card)
    return path


def snapshot(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_state(model, expected):
    state = model.state_dict()
    assert state.keys() == expected.keys()
    assert [name for name in state if not torch.equal(state[name], expected[name])] == []


@pytest.mark.parametrize("name", ["t2t_vit_7", "t2t_vit_t_14", "t2t_vit_c_14", "fvit_tiny", "fvit_tiny_dp"])
def test_own_file_comes_back_to_the_bit(tmp_path, name):
    source, target = randomised(small(name)), small(name)
    path = saved(tmp_path / "m.safetensors", source.state_dict(), ModelCard(name, 5))
    report = load_weights(target, path)
    assert_state(target, source.state_dict())
    assert set(report.matched) == set(source.state_dict())
    assert not (report.resized or report.fresh or report.ignored or report.faults)
    image = torch.randn(2, 3, 48, 48)
    with torch.inference_mode():
        assert torch.equal(source(image), target(image))


@pytest.mark.parametrize("name", ["t2t_vit_7", "fvit_tiny_dp", "test_resnet"])
def test_other_class_count_leaves_the_classifier_fresh(tmp_path, name):
    build = (lambda **options: timm.create_model(name, **options)) if name == "test_resnet" else (lambda **options: small(name, **options))
    source, target = randomised(build(num_classes=10)), build(num_classes=3)
    heads = {f"{source.pretrained_cfg['classifier']}.{leaf}" for leaf in ("weight", "bias")}
    before = snapshot(target)
    report = load_weights(target, saved(tmp_path / "m.pth", source.state_dict()))
    assert set(report.fresh) == heads
    assert_state(target, {key: (before if key in heads else source.state_dict())[key] for key in before})
    assert "left fresh" in str(report)


def test_a_model_without_classifier_ignores_the_files_and_a_file_without_leaves_it_fresh(tmp_path):
    whole, headless = randomised(small()), small(num_classes=0)
    report = load_weights(headless, saved(tmp_path / "whole.pth", whole.state_dict()))
    assert report.ignored == ("head.bias", "head.weight")
    assert_state(headless, {name: t for name, t in whole.state_dict().items() if not name.startswith("head")})
    report = load_weights(target := small(), saved(tmp_path / "headless.pth", headless.state_dict()))
    assert set(report.fresh) == {"head.weight", "head.bias"}
    assert torch.equal(target.cls_token, whole.cls_token)


def test_other_picture_size_resizes_the_table_and_says_so(tmp_path):
    source, target = randomised(small()), small(img_size=(96, 160))
    report = load_weights(target, saved(tmp_path / "m.pth", source.state_dict()))
    assert report.resized == (("pos_embed", (1, 197, 256), (1, 1 + 6 * 10, 256)),)
    assert torch.equal(target.pos_embed[:, 0], source.pos_embed[:, 0])  # the class token's row
    assert target.pos_embed.requires_grad is False
    assert "resized: pos_embed (1, 197, 256) -> (1, 61, 256)" in str(report)


@pytest.mark.parametrize("name", ["t2t_vit_7", "t2t_vit_t_14", "t2t_vit_c_14", "fvit_tiny_dp", "test_resnet"])
@pytest.mark.parametrize("channels", [1, 4, 13])
def test_other_channels_adapt_the_first_layer_and_say_so(tmp_path, name, channels):
    build = (lambda **options: timm.create_model(name, **options)) if name == "test_resnet" else (lambda **options: small(name, **options))
    source, target = randomised(build(num_classes=4)), build(num_classes=4, in_chans=channels)
    report = load_weights(target, saved(tmp_path / "m.pth", source.state_dict()))
    own = target.state_dict()
    assert report.resized
    for changed, found, made in report.resized:
        assert found == tuple(source.state_dict()[changed].shape) != made == tuple(own[changed].shape)
    untouched = source.state_dict().keys() - {changed for changed, *_ in report.resized}
    assert all(torch.equal(own[key], source.state_dict()[key]) for key in untouched)
    assert set(report.matched) == set(own)


def test_channels_that_cannot_be_adapted_are_refused(tmp_path):
    source = small("fvit_tiny_dp", in_chans=4)
    with pytest.raises(UserError, match="picture size and channels"):
        load_weights(small("fvit_tiny_dp", in_chans=5), saved(tmp_path / "m.pth", source.state_dict()))


FAULTS = {
    "missing": (lambda state: state.pop("norm.bias"), "1 missing (norm.bias)"),
    "unexpected": (lambda state: state.update(extra=torch.ones(2)), "1 unexpected (extra)"),
    "shape": (lambda state: state.update({"norm.bias": torch.ones(3)}), "1 of another shape (norm.bias (3,), expected (256,))"),
    "dimensions": (lambda state: state.update(pos_embed=torch.ones(3)), "1 of another shape (pos_embed (3,), expected (1, 197, 256))"),
    "not a number": (lambda state: state["norm.bias"].fill_(float("nan")), "1 not finite (norm.bias)"),
    "head of another width": (lambda state: state.update({"head.weight": torch.ones(5, 9)}), "1 of another shape (head.weight (5, 9)"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_an_error_that_leaves_the_model_as_it_was(tmp_path, kind):
    spoil, message = FAULTS[kind]
    state = snapshot(randomised(small()))
    spoil(state)
    path, target = saved(tmp_path / "m.pth", state), small()
    before = snapshot(target)
    with pytest.raises(UserError) as error:
        load_weights(target, path)
    assert message in str(error.value)
    assert "allow_partial" in str(error.value)
    assert str(error.value).isprintable()
    assert_state(target, before)

    report = load_weights(target, path, allow_partial=True)
    assert len(report.faults) == 1
    assert message in str(report)
    changed = {name for name, tensor in target.state_dict().items() if not torch.equal(tensor, before[name])}
    assert len(changed) >= len(before) - 1


def test_long_lists_are_cut_and_counted(tmp_path):
    state = {name: tensor for name, tensor in small().state_dict().items() if "mlp" not in name and "norm" not in name}
    with pytest.raises(UserError) as error:
        load_weights(small(depth=3), saved(tmp_path / "m.pth", state))
    missing = small(depth=3).state_dict().keys() - state.keys()
    assert f"{len(missing)} missing (" in str(error.value)
    assert len([name for name in missing if f"{name}," in str(error.value)]) == 8


def test_nothing_in_common_is_an_error_even_in_part(tmp_path):
    path = saved(tmp_path / "m.pth", {"a.weight": torch.ones(2)})
    with pytest.raises(UserError, match="nothing in it fits"):
        load_weights(small(), path, allow_partial=True)


def test_half_precision_is_cast_to_the_models_type(tmp_path):
    source, target = randomised(small("fvit_tiny_dp")), small("fvit_tiny_dp")
    load_weights(target, saved(tmp_path / "m.pth", {n: t.half() if t.is_floating_point() else t for n, t in source.state_dict().items()}))
    assert_state(target, {n: t.half().float() if t.is_floating_point() else t for n, t in source.state_dict().items()})
    assert {t.dtype for t in target.state_dict().values()} == {torch.float32, torch.int64}


def released(tmp_path, **options):
    source = randomised(small("fvit_tiny_dp", **options))
    grids = {f"blocks_stage1.0.attn.GaborLayer.{axis}": torch.ones(1, 3, 3) for axis in "xy"}
    return source, saved(tmp_path / "released.pth", {"model": {**to_theirs(source.state_dict(), LAYOUTS[-1]), **grids}})


def test_the_authors_fvit_switches_their_token_order_on(tmp_path):
    source, path = released(tmp_path)
    target = small("fvit_tiny_dp")
    assert target.token_order == "raster"
    report = load_weights(target, path)
    assert (target.token_order, report.token_order) == ("released", "released")
    assert report.ignored == ("blocks_stage1.0.attn.GaborLayer.x", "blocks_stage1.0.attn.GaborLayer.y")
    assert "token order: released" in str(report)
    assert_state(target, source.state_dict())
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert not torch.allclose(source(image), target(image))
        source.token_order = "released"
        assert torch.equal(source(image), target(image))


def test_the_card_of_our_file_sets_the_token_order_too(tmp_path):
    state = small("fvit_tiny_dp").state_dict()
    target = small("fvit_tiny_dp")
    card = ModelCard("fvit_tiny_dp", 5, options={"token_order": "released"})
    assert load_weights(target, saved(tmp_path / "released.safetensors", state, card)).token_order == "released"
    assert target.token_order == "released"
    load_weights(target, saved(tmp_path / "raster.safetensors", state, ModelCard("fvit_tiny_dp", 5)))
    assert target.token_order == "raster"
    bad = saved(tmp_path / "bad.safetensors", state, ModelCard("fvit_tiny_dp", 5, options={"token_order": "spiral"}))
    with pytest.raises(UserError, match="'spiral'"):
        load_weights(target, bad)


def test_a_refused_file_does_not_switch_the_token_order(tmp_path):
    _, path = released(tmp_path)
    target = small("fvit_tiny_dp", depths=(1, 1, 2, 1))
    with pytest.raises(UserError):
        load_weights(target, path)
    assert target.token_order == "raster"


def test_released_weights_in_a_model_of_the_paper_name_the_right_model(tmp_path):
    full = create_model("fvit_small_dp", depths=(1, 1, 1, 1))
    path = saved(tmp_path / "m.pth", to_theirs(full.state_dict(), LAYOUTS[-1]))
    with pytest.raises(UserError, match="these are weights of the released family, use fvit_small_dp"):
        load_weights(create_model("fvit_tiny"), path)


def test_the_card_of_another_model_is_mentioned_only_where_the_names_do_not_fit(tmp_path):
    source = small()
    path = saved(tmp_path / "m.safetensors", source.state_dict(), ModelCard("t2t_vit_12", 5))
    load_weights(small(), path)
    with pytest.raises(UserError, match="the file says it is a t2t_vit_12"):
        load_weights(small(depth=2), path)


def test_a_model_without_any_of_timms_contract_loads_as_well(tmp_path):
    source, target = nn.Linear(2, 3), nn.Linear(2, 3)
    load_weights(target, saved(tmp_path / "m.pth", source.state_dict()))
    assert_state(target, source.state_dict())
    with pytest.raises(UserError, match="do not fit Linear"):
        load_weights(nn.Linear(2, 4), saved(tmp_path / "m.pth", source.state_dict()))
