"""Learning curves show every measured point and no other."""

import numpy as np
import pytest

from foveate.plots.curves import learning_curves


class TestLearningCurves:
    ROWS = tuple(
        {
            "epoch": epoch,
            "train_loss": 2 / epoch,
            "val_loss": 2.2 / epoch if epoch % 2 else float("nan"),
            "learning_rate": 1e-3 / epoch,
            **({"val_top1": 1 - 1 / epoch} if epoch % 2 else {}),
        }
        for epoch in range(1, 10)
    )

    def test_draws_every_measured_point_and_no_other(self, tmp_path, drawn):
        out = learning_curves(self.ROWS, tmp_path / "curves.png", title="fvit_tiny")
        loss, top1, rate = drawn.figure.axes
        lines = {line.get_label(): line.get_xydata().tolist() for line in (*loss.lines, *top1.lines)}
        assert lines["train loss"] == [[row["epoch"], row["train_loss"]] for row in self.ROWS]
        assert lines["val loss"] == [[e, 2.2 / e] for e in (1, 3, 5, 7, 9)]
        assert lines["val top-1"] == [[e, 1 - 1 / e] for e in (1, 3, 5, 7, 9)]
        assert rate.lines[0].get_ydata().tolist() == [row["learning_rate"] for row in self.ROWS]
        assert "best val top-1: 88.89% (epoch 9)" in top1.get_title()
        assert "fvit_tiny" in [text for text, _ in drawn.words]
        assert out == tmp_path / "curves.png" and [file.name for file in tmp_path.iterdir()] == ["curves.png"]

    def test_train_and_measured_lines_differ_without_colour(self, tmp_path, drawn):
        learning_curves(self.ROWS, tmp_path / "curves.png")
        styles = [line.get_linestyle() for line in drawn.figure.axes[0].lines]
        assert len(set(styles)) == len(styles) == 2

    def test_other_tasks_show_their_own_figures_and_mark_the_best(self, tmp_path, drawn):
        names = ("box_ap", "box_ap50", "mask_ap")
        kinds = [(f"{kind}_{name}", rise) for kind, rise in (("val", 0.08), ("averaged", 0.09)) for name in names]
        rows = [{"epoch": e, "train_loss": 1 / e, **{name: rise * e - (e == 9) * 0.5 for name, rise in kinds}} for e in range(1, 10)]
        learning_curves(rows, tmp_path / "curves.png", title="retinanet on fvit_tiny")
        _, axes = drawn.figure.axes
        lines = [line for line in axes.lines if not line.get_label().startswith("_")]
        assert {line.get_label() for line in lines} == {f"{k} {n}" for k in ("val", "averaged") for n in ("box AP", "box AP50", "mask AP")}
        assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == 6, "told apart without colour"
        assert axes.get_ylabel() == "box AP, mask AP, box AP50"
        assert "best val box AP: 64.00% (epoch 8)" in axes.get_title() and "best averaged mask AP: 72.00% (epoch 8)" in axes.get_title()
        stars = [tuple(line.get_xydata()[0]) for line in axes.lines if line.get_marker() == "*"]
        np.testing.assert_allclose(sorted(stars), [(8, 0.64)] * 3 + [(8, 0.72)] * 3)
        drawn.assert_readable()

    def test_segmentation_shows_miou_and_pixel_accuracy(self, tmp_path, drawn):
        rows = [{"epoch": e, "val_loss": 1 / e, "val_miou": 0.01 * e, "val_pixel_accuracy": 0.02 * e} for e in range(1, 41)]
        learning_curves(rows, tmp_path / "curves.png")
        _, axes = drawn.figure.axes
        assert axes.get_title() == "best val mIoU: 40.00% (epoch 40)\nbest val pixel accuracy: 80.00% (epoch 40)"
        drawn.assert_readable()

    @pytest.mark.parametrize("rows", [ROWS[:1], ROWS, [{"epoch": 1, "train_loss": float("nan")}]], ids=["one epoch", "nine", "nothing"])
    def test_is_readable_however_little_there_is(self, tmp_path, drawn, rows):
        learning_curves(rows, tmp_path / "curves.png", title="t2t_vit_7 on clothing10")
        drawn.assert_readable()
