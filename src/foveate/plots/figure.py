"""What the pictures of the project's own figures have in common: colours, line styles, an empty figure, and how one becomes a file.

Colours are told apart by people with colour-blind vision (Okabe-Ito), and no statement rests on colour alone. Nothing here touches
pyplot's global state, so every function may be called from any thread; files appear under their name only when complete.
"""

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from foveate.whole_files import whole_file

BLUE, VERMILLION, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#6B6B6B"
TRAIN_LINE = (BLUE, "--")
MEASURED_LINES = ((VERMILLION, "-"), (GREEN, "-."), (PURPLE, ":"))
MARKERS = ("o", "s", "^")
MODEL_LINES = (TRAIN_LINE, *MEASURED_LINES, ("#E69F00", "-"), ("#56B4E9", "-."), ("#000000", ":"))
DOTS_PER_INCH = 150


def model_looks() -> Iterator[tuple[str, str, str]]:
    """Colour, line style and marker of one model after another; two that follow each other differ in all, the first 21 in some."""
    return ((*line, marker) for line, marker in zip(cycle(MODEL_LINES), cycle(MARKERS)))


def new_figure(width: float, height: float, title: str = "") -> Figure:
    """An empty figure of `width` x `height` inches, with `title` over all of it where there is one."""
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout=ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.09))
    if title:
        figure.suptitle(title, fontsize=13, fontweight="bold")
    return figure


def save(figure: Figure, out: Path) -> Path:
    """Writes the PNG `out`; `UserError` where that cannot be written."""
    with whole_file(out) as part:
        figure.savefig(part, format="png")
    return out
