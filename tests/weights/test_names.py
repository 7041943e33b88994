import json
from functools import cache

import pytest
import torch

from foveate.factory import create_model
from foveate.weights.names import LAYOUTS, layout_of_ours, layout_of_theirs, to_ours, to_theirs
from foveate.weights.pickles import UnreadableError


@cache
def shapes_of(name):
    with torch.device("meta"):
        return create_model(name).state_dict()


@pytest.mark.parametrize(("ours", "theirs"), [("t2t_vit_7", "t2t_vit_7"), ("t2t_vit_t_14", "t2t_vit_t_14"), ("fvit_tiny_dp", "fvit_tiny")])
def test_our_models_have_the_authors_names_and_shapes(golden, ours, theirs):
    state = shapes_of(ours)
    expected = {name: tuple(shape) for name, shape, _ in json.loads((golden / f"{theirs}.keys.json").read_text())}
    grids = {name for name in expected if name.endswith(("GaborLayer.x", "GaborLayer.y"))}
    found = {name: tuple(tensor.shape) for name, tensor in to_theirs(state, layout_of_ours(state)).items()}
    assert found == {name: shape for name, shape in expected.items() if name not in grids}
    assert len(grids) == (48 if theirs == "fvit_tiny" else 0)


KINDS = ["t2t_vit_7", "t2t_vit_24", "t2t_vit_t_19", "t2t_vit_c_14", "t2t_vit_14_se", "t2t_vit_dense", "t2t_vit_16_ghost", "fvit_large_dp"]


@pytest.mark.parametrize("name", KINDS)
def test_every_published_model_goes_there_and_back(name):
    state = shapes_of(name)
    theirs = to_theirs(state, layout_of_ours(state))
    assert layout_of_ours(state) is layout_of_theirs(theirs)
    assert not [key for key in theirs if key.startswith(("token_stage", "stem.", "stages."))]
    back, aside = to_ours(theirs, layout_of_theirs(theirs))
    assert aside == ()
    assert {key: tensor.shape for key, tensor in back.items()} == {key: tensor.shape for key, tensor in state.items()}


def test_names_of_the_study():
    squeeze = to_theirs(shapes_of("t2t_vit_14_se"), layout_of_ours(shapes_of("t2t_vit_14_se")))
    assert {"blocks.3.attn.se_layer.fc.0.weight", "blocks.3.attn.se_layer.fc.2.weight"} <= squeeze.keys()
    convolution = to_theirs(shapes_of("t2t_vit_c_14"), layout_of_ours(shapes_of("t2t_vit_c_14")))
    assert {f"tokens_to_token.{part}.weight" for part in ("soft_split0", "soft_split1", "project")} <= convolution.keys()
    ghost = to_theirs(shapes_of("t2t_vit_16_ghost"), layout_of_ours(shapes_of("t2t_vit_16_ghost")))
    assert {"blocks.0.attn.cheap_operation_q.weight", "blocks.0.attn.v.weight", "blocks.0.mlp.cheap_operation3.weight"} <= ghost.keys()
    dense = to_theirs(shapes_of("t2t_vit_dense"), layout_of_ours(shapes_of("t2t_vit_dense")))
    assert {"blocks.0.dense_linear.weight", "blocks.3.linear.weight"} <= dense.keys()


def test_other_models_have_no_layout():
    assert layout_of_theirs(["conv1.weight", "blocks.0.attn.qkv.weight", "head.weight"]) is None
    assert layout_of_ours(["conv1.weight", "blocks.0.attn.qkv.weight", "head.weight"]) is None
    assert layout_of_theirs(shapes_of("fvit_tiny_dp")) is None


def test_two_names_for_one_place_are_refused():
    performer = LAYOUTS[0]
    names = ["tokens_to_token.attention1.w", "tokens_to_token.attention1.random_features"]
    with pytest.raises(UnreadableError, match=r"token_stage\.layer1\.random_features"):
        to_ours({name: torch.zeros(2, 2) for name in names}, performer)
