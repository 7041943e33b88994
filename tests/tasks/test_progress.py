import io

from rich.console import Console

from foveate.tasks.progress import Report

ROW = {"epoch": 2.0, "step": 8, "minutes": 0.5, "learning_rate": 1e-3, "train_loss": 1.25, "images_per_second": 80.0}


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
