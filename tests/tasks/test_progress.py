import io

from rich.console import Console

from foveate.tasks.progress import Report

ROW = {"epoch": 2.0, "step": 8, "minutes": 0.5, "learning_rate": 1e-3, "train_loss": 1.25, "images_per_second": 80.0, "loader_share": 0.031}


def told(report, rows):
    with report:
        report.step(8, 1.0, 1.2, 1e-3)
        report.rows(rows)


def test_one_line_per_epoch_where_nobody_watches():
    output = io.StringIO()
    told(Report(Console(file=output, width=40), 10), [ROW, {**ROW, "val_top1": 0.5, "averaged_val_top1": 0.75}])
    [line] = output.getvalue().splitlines()
    assert "step 8/10" in line
    assert "val top-1 50.00%, averaged val top-1 75.00%" in line
    assert line.endswith("waiting for pictures 3%")


def test_a_bar_with_the_whole_training_on_a_terminal():
    output = io.StringIO()
    told(Report(Console(file=output, width=200, force_terminal=True), 10), [{**ROW, "val_top1": 0.5}])
    text = output.getvalue()
    for expected in ("100%", "left", "step 8/10", "loss 1.200", "lr 1.00e-03", "50.00%"):
        assert expected in text


def test_other_processes_are_silent_and_rows_are_handed_on(capsys):
    kept = []
    told(Report(None, 10, kept.append), [ROW])
    assert capsys.readouterr() == ("", "")
    assert kept == [[ROW]]


def test_slow_pictures_are_one_line_above_the_bar_or_alone():
    for terminal in (False, True):
        output = io.StringIO()
        with Report(Console(file=output, width=40, force_terminal=terminal), 10) as report:
            report.slow_pictures(0.62)
        [line] = [line for line in output.getvalue().splitlines() if "waiting" in line]
        assert "62% of the time goes into waiting for pictures" in line
        assert "--num-workers" in line and "--precision" in line
    Report(None, 10).slow_pictures(0.62)
