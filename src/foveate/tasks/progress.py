"""What a training says of itself while it runs: on the terminal, in the metrics file and, if wanted, to TensorBoard."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from foveate.metric_names import HEADLINES, spoken

Rows = Sequence[Mapping[str, float]]


class Report:
    """One bar over the whole training with time left, loss, learning rate and headlines; on a console that is no terminal, lines per epoch.

    A context manager. Processes other than the first have a report without console, which does nothing.

    Args:
        console: where to; None is silent.
        total_steps: of the training.
        write_rows: called with all rows of the metrics when there is a new one.
        events: folder of TensorBoard's events, or None for none.
    """

    def __init__(
        self, console: Console | None, total_steps: int, write_rows: Callable[[Rows], None] | None = None, events: Path | None = None
    ) -> None:
        self.console, self.total_steps, self.write_rows = console, total_steps, write_rows
        self.bar = _bar(console) if console is not None and console.is_terminal else None
        self.task = None if self.bar is None else self.bar.add_task("training", total=1.0, figures="", headline="")
        self.board = None
        if events is not None:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - a second to import, and rarely used

            self.board = SummaryWriter(str(events))

    def __enter__(self) -> "Report":
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()
        if self.board is not None:
            self.board.close()

    def step(self, step: int, progress: float, loss: float, rate: float) -> None:
        """After every weight update; `progress` is the share of the training that is done."""
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=progress, figures=f"step {step}/{self.total_steps}  loss {loss:.3f}  lr {rate:.2e}")
        if self.board is not None:
            self.board.add_scalar("step/loss", loss, step)
            self.board.add_scalar("step/learning_rate", rate, step)

    def note(self, words: str) -> None:
        """A line for the user, now."""
        if self.console is not None:
            self.console.print(words, highlight=False, soft_wrap=True)

    def slow_pictures(self, share: float) -> None:
        """Where the training spends this much of its time waiting for pictures."""
        cures = "more --num-workers if cores are free, pictures stored smaller or weaker augmentation would help"
        self.note(f"{share:.0%} of the time goes into waiting for pictures: {cures}; --precision or a faster device would not")

    def rows(self, rows: Rows) -> None:
        """After every epoch; the last row is the new one."""
        row = rows[-1]
        if self.write_rows is not None:
            self.write_rows(rows)
        if self.board is not None:
            for name, value in row.items():
                self.board.add_scalar(f"epoch/{name}", value, row["step"])
        headline = [f"{spoken(name)} {value:.2%}" for name, value in row.items() if name.endswith(tuple(HEADLINES))]
        if self.bar is not None and self.task is not None:
            if headline:
                self.bar.update(self.task, headline=", ".join(headline))
        elif self.console is not None:
            speed = row["images_per_second"]
            share = f"epoch {row['epoch']:g}, step {row['step']}/{self.total_steps}, {row['minutes']:.1f} min"
            figures = [
                f"loss {row['train_loss']:.4f}",
                f"lr {row['learning_rate']:.2e}",
                *headline,
                f"{speed:.0f} pictures/s" if speed >= 10 else f"{speed:.1f} pictures/s",
                f"waiting for pictures {row['loader_share']:.0%}",
            ]
            self.console.print(f"{share}: {', '.join(figures)}", highlight=False, soft_wrap=True)


def _bar(console: Console) -> Progress:
    share, left = TextColumn("[bold]{task.percentage:>3.0f}%"), TextColumn("left")
    figures, headline = TextColumn("{task.fields[figures]}"), TextColumn("{task.fields[headline]}")
    columns = (share, BarColumn(), TimeElapsedColumn(), left, TimeRemainingColumn(), figures, headline)
    return Progress(*columns, console=console, refresh_per_second=4, speed_estimate_period=300)
