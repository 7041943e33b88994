"""Figures are drawn without pyplot, so from any thread."""

from itertools import islice, pairwise

import matplotlib
from matplotlib import pyplot

from foveate.plots.curves import learning_curves
from foveate.plots.figure import model_looks


def test_pyplots_global_state_is_left_alone(tmp_path):
    figures, settings = pyplot.get_fignums(), dict(matplotlib.rcParams)
    learning_curves([{"epoch": 1, "train_loss": 1.0}], tmp_path / "curves.png")
    assert pyplot.get_fignums() == figures and dict(matplotlib.rcParams) == settings


def test_models_look_different():
    looks = list(islice(model_looks(), 21))
    assert len(set(looks)) == 21
    assert all(set(one).isdisjoint(other) for one, other in pairwise(looks)), "neighbours share neither colour nor line nor marker"
