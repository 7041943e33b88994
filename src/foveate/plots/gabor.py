"""Learnt Gabor filters before and after a training, side by side."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from foveate.plots.figure import GREY, new_figure, save

PITCH = (1.25, 2.75)  # from pair to pair, across and down, in sides of a kernel


def gabor_titles(wavelengths: tuple[Sequence[float], Sequence[float]], orientations: tuple[Sequence[float], Sequence[float]]) -> list[str]:
    """The two lines that `gabor_sheet` writes over each filter: wavelength in pixels, orientation in degrees 0..179, before and after.

    Args:
        wavelengths: before and after, in pixels of the map; above 99 px a filter has no visible stripes, and is shown as ">99".
        orientations: before and after, in radians, counter-clockwise: the direction across the stripes, which repeats every half turn.
    """

    def length(pixels: float) -> str:
        return f"{pixels:.1f}" if pixels < 99 else ">99"

    def angle(radians: float) -> str:
        return f"{round(np.degrees(radians)) % 180}°"

    changes = zip(*wavelengths, *orientations, strict=True)
    return [f"{length(old)} → {length(new)} px\n{angle(start)} → {angle(end)}" for old, new, start, end in changes]


def gabor_sheet(
    before: npt.NDArray[np.floating],
    after: npt.NDArray[np.floating],
    titles: Sequence[str],
    out: Path,
    *,
    columns: int = 8,
    title: str = "",
) -> Path:
    """Gabor kernels before (above) and after training (below), in pairs; each pair shares one symmetric colour scale.

    Args:
        before: (N, k, k) kernels as they were.
        after: (N, k, k) the same kernels as they are.
        titles: N short texts over the pairs, see `gabor_titles`.
        out: the PNG.
        columns: pairs per row.
        title: usually the model's name.

    Raises:
        ValueError: where the arrays differ in shape or the titles in number.
    """
    if before.shape != after.shape or len(titles) != len(before) or not len(before):
        raise ValueError(
            f"gabor sheet: found {before.shape} before, {after.shape} after, {len(titles)} titles, expected equal numbers, at least one"
        )
    columns = min(columns, len(before))
    rows = -(-len(before) // columns)
    figure = new_figure(max(PITCH[0] * columns + 1.8, 6.5), PITCH[1] * rows + 1.1, title)
    figure.supxlabel("over each pair: wavelength and orientation (across the stripes, counter-clockwise), before → after", fontsize=9)
    axes = figure.subplots()
    axes.set_axis_off()
    for index, pair in enumerate(np.stack((before, after), axis=1)):
        image = _draw_pair(axes, pair, titles[index], (index % columns, index // columns))
    axes.set_xlim(-0.35, columns * PITCH[0] - 0.2)
    axes.set_ylim(-PITCH[1] * rows + 0.6, 0.5)
    figure.colorbar(image, ax=axes, label="weight / largest of its pair", shrink=min(1.0, 1.4 / rows), aspect=25, pad=0.01, panchor=False)
    return save(figure, out)


def _draw_pair(axes: Axes, pair: npt.NDArray[np.floating], title: str, place: tuple[int, int]) -> AxesImage:
    """Draws a pair (2, k, k), above and below, at its place (column, row)."""
    left, top = place[0] * PITCH[0], -place[1] * PITCH[1]
    largest = float(np.abs(pair).max()) or 1.0
    for kernel, bottom, name in zip(pair / largest, (top - 1, top - 2.08), ("before", "after"), strict=True):
        box = (left, left + 1, bottom, bottom + 1)
        image = axes.imshow(kernel, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest", extent=box)
        axes.add_patch(Rectangle((left, bottom), 1, 1, fill=False, edgecolor=GREY, linewidth=0.5))
        if place[0] == 0:
            axes.text(left - 0.1, bottom + 0.5, name, rotation=90, ha="right", va="center", fontsize=10)
    axes.text(left + 0.5, top + 0.06, title, ha="center", va="bottom", fontsize=8.5)
    return image
