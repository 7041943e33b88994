"""The table of sizes against the specification's columns, and against counting."""

import pytest
import torch

from foveate.counting import count_macs, count_parameters
from foveate.factory import create_model, list_models
from foveate.published import PUBLISHED

# Millions of parameters and GMACs as counted on the authors' code; convolution stage: as the paper prints them.
AUTHORS = {
    "fvit_tiny_dp": ("12.504", 2.295),
    "fvit_small_dp": ("25.977", 4.705),
    "fvit_base_dp": ("44.831", 8.018),
    "fvit_large_dp": ("64.487", 11.475),
    "t2t_vit_7": ("4.310", 1.156),
    "t2t_vit_10": ("5.889", 1.527),
    "t2t_vit_12": ("6.942", 1.775),
    "t2t_vit_14": ("21.546", 4.800),
    "t2t_vit_19": ("39.177", 8.503),
    "t2t_vit_24": ("64.106", 13.692),
    "t2t_vit_t_14": ("21.541", 6.106),
    "t2t_vit_t_19": ("39.173", 9.808),
    "t2t_vit_t_24": ("64.101", 14.998),
    "t2t_vit_14_resnext": ("21.546", 4.800),
    "t2t_vit_14_wide": ("25.156", 5.242),
    "t2t_vit_14_se": ("21.804", 4.801),
    "t2t_vit_dense": ("23.647", 5.296),
    "t2t_vit_16_ghost": ("16.253", 3.820),
}


def test_every_model_has_a_row_and_every_row_a_model():
    assert set(PUBLISHED) == set(list_models())


@pytest.mark.parametrize("name", AUTHORS)
def test_sizes_are_the_authors(name):
    parameters, gmacs = AUTHORS[name]
    assert f"{PUBLISHED[name].parameters / 1e6:.3f}" == parameters
    assert PUBLISHED[name].macs / 1e9 == pytest.approx(gmacs, rel=0.02)


def test_the_convolutional_token_stage_is_near_what_the_paper_prints():
    assert PUBLISHED["t2t_vit_c_14"].parameters / 1e6 == pytest.approx(21.3, abs=0.15)
    assert PUBLISHED["t2t_vit_c_14"].macs / 1e9 == pytest.approx(4.6, abs=0.05)


def counted(name):
    with torch.device("meta"):
        model = create_model(name)
    return count_parameters(model), count_macs(model)


@pytest.mark.parametrize("name", ["t2t_vit_7", "t2t_vit_t_14"])
def test_the_table_is_what_counting_gives(name):
    assert counted(name) == PUBLISHED[name][:2]


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_whole_table_is_what_counting_gives(name):
    assert counted(name) == PUBLISHED[name][:2]
