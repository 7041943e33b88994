"""The letters that are written onto pictures: the same on every machine."""

from functools import lru_cache
from pathlib import Path

import matplotlib
from PIL import ImageFont


@lru_cache(maxsize=64)
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as matplotlib ships it, `size` pixels high."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"DejaVuSans{'-Bold' if bold else ''}.ttf", size)


def fitted(line: str, width: float, letters: ImageFont.FreeTypeFont) -> str:
    """`line`, or as much of it and an ellipsis as fits into `width` pixels."""
    if letters.getlength(line) <= width:
        return line
    while line and letters.getlength(line + "…") > width:
        line = line[:-1]
    return line + "…"
