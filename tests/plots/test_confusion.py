"""The confusion matrix says what the counts say."""

import numpy as np
import pytest
from PIL import Image

from foveate.plots.confusion import confusion_matrix


class TestConfusionMatrix:
    @pytest.mark.parametrize("classes", [2, 20, 100])
    def test_is_readable(self, tmp_path, drawn, classes):
        counts = np.random.default_rng(classes).integers(0, 2000, (classes, classes)) * np.eye(classes, dtype=int)
        names = [f"{'long ' * (index % 7)}class {index}" for index in range(classes)]
        confusion_matrix(counts, names, tmp_path / "confusion.png", title="fvit_tiny")
        drawn.assert_readable()
        with Image.open(tmp_path / "confusion.png") as image:
            assert 500 < image.width < 2600 and 500 < image.height < 2800

    def test_shows_counts_shares_and_totals(self, tmp_path, drawn):
        counts = np.array([[3, 1, 0], [0, 5, 5], [0, 0, 0]])
        confusion_matrix(counts, ["cat", "dog", "never seen"], tmp_path / "confusion.png", title="t2t_vit_7")
        axes = drawn.figure.axes[0]
        np.testing.assert_allclose(axes.images[0].get_array(), [[0.75, 0.25, 0], [0, 0.5, 0.5], [0, 0, 0]])
        written = {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axes.texts}
        assert written == {(0, 0): "3", (0, 1): "1", (1, 1): "5", (1, 2): "5"}
        assert [tick.get_text() for tick in axes.get_yticklabels()] == ["cat (4)", "dog (10)", "never seen (0)"]
        assert axes.get_title() == "t2t_vit_7\n14 pictures, top-1 57.14%"

    def test_many_classes_are_named_in_steps_and_say_so(self, tmp_path, drawn):
        confusion_matrix(np.eye(120, dtype=int), [f"c{i}" for i in range(120)], tmp_path / "confusion.png")
        axes = drawn.figure.axes[0]
        assert len(axes.get_xticklabels()) == 60 and not axes.texts
        assert "one class in 2 is named" in axes.get_ylabel()

    def test_refuses_names_that_do_not_fit(self, tmp_path):
        with pytest.raises(ValueError, match=r"found shape \(3, 3\), expected \(2, 2\)"):
            confusion_matrix(np.eye(3, dtype=int), ["a", "b"], tmp_path / "confusion.png")
        assert not list(tmp_path.iterdir())
