"""Names beside the points of a picture, none on top of another."""

import re
from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from foveate.plots.figure import GREY

NAME_SIZE = 8  # points
NAME_GAP = 6.0  # points from a mark to its name
MOST_NUDGES = 60
LONGEST_LINE = 30  # characters


def name_points(figure: Figure, axes: Axes, named: Sequence[tuple[str, float, float]]) -> None:
    """Writes its name beside every point (name, x, y), higher or lower where others stand in its way, then with a line to the point.

    Names of models with many arguments take several lines.
    """
    figure.draw_without_rendering()  # finds the layout, on which the places in pixels depend
    points = [tuple(axes.transData.transform((x, y))) for _, x, y in named]
    gap = NAME_GAP * figure.dpi / 72
    taken = [Bbox.from_extents(x - gap / 2, y - gap / 2, x + gap / 2, y + gap / 2) for x, y in points]
    for place in sorted(range(len(named)), key=lambda place: (-points[place][1], points[place][0])):
        (name, *values), (x, y) = named[place], points[place]
        name = in_lines(name)
        written = axes.text(0, 0, name, fontsize=NAME_SIZE)
        size = written.get_window_extent()
        written.remove()
        box = _free(list(_places(x, y, gap, size.width, size.height)), taken, axes.get_window_extent())
        taken.append(box)
        _write(axes, name, (values[0], values[1]), (x, y), box)


def in_lines(name: str) -> str:
    """A name in lines of `LONGEST_LINE` characters at most, broken before colons alone."""
    lines = [""]
    for part in re.split("(?=:)", name):
        if lines[-1] and len(lines[-1] + part) > LONGEST_LINE:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _places(x: float, y: float, gap: float, width: float, height: float) -> Iterator[Bbox]:
    """Where the name of a point may stand, in pixels, the best place first: right or left of it, then ever farther up and down."""
    for nudge in range(MOST_NUDGES):
        middle = y + (nudge + 1) // 2 * (-1) ** nudge * height * -0.6
        for left in (x + gap, x - gap - width):
            yield Bbox.from_bounds(left, middle - height / 2, width, height)


def _free(places: Sequence[Bbox], taken: Sequence[Bbox], bounds: Bbox) -> Bbox:
    """The first place inside the bounds that touches nothing that is taken; where there is none, the first inside them."""
    inside = [box for box in places if bounds.x0 <= box.x0 and box.x1 <= bounds.x1 and bounds.y0 <= box.y0 and box.y1 <= bounds.y1]
    free = (box for box in inside if not any(box.overlaps(other) for other in taken))
    return next(free, inside[0] if inside else places[0])


def _write(axes: Axes, name: str, point: tuple[float, float], pixels: tuple[float, float], box: Bbox) -> None:
    """Writes `name` into `box`, in pixels, and a line from there to the point where it is not level with it."""
    right = box.x0 > pixels[0]
    near = (0.0 if right else 1.0, 0.5)
    level = abs((box.y0 + box.y1) / 2 - pixels[1]) < 1
    label = axes.annotate(
        name,
        point,
        ((box.x0 if right else box.x1) - pixels[0], (box.y0 + box.y1) / 2 - pixels[1]),
        textcoords="offset pixels",
        ha="left" if right else "right",
        va="center",
        fontsize=NAME_SIZE,
        arrowprops=None if level else {"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3, "relpos": near},
    )
    label.set_in_layout(False)  # the layout is settled
