"""Figures are drawn without pyplot, so from any thread."""

import matplotlib
from matplotlib import pyplot

from foveate.plots.curves import learning_curves


def test_pyplots_global_state_is_left_alone(tmp_path):
    figures, settings = pyplot.get_fignums(), dict(matplotlib.rcParams)
    learning_curves([{"epoch": 1, "train_loss": 1.0}], tmp_path / "curves.png")
    assert pyplot.get_fignums() == figures and dict(matplotlib.rcParams) == settings
