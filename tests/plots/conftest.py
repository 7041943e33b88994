"""The figure that was drawn last, and whether every word on it can be read."""

import itertools

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text


class Drawn:
    """The last figure that was drawn while the test runs, and the words on it with their boxes in pixels."""

    def __init__(self):
        self.figure = None
        self.words = []

    def assert_readable(self):
        """No word leaves the picture or touches another one."""
        width, height = self.figure.canvas.get_width_height()
        for text, box in self.words:
            assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, f"{text!r} leaves the picture"
        for (first, a), (second, b) in itertools.combinations(self.words, 2):
            apart = a.x1 <= b.x0 + 1 or b.x1 <= a.x0 + 1 or a.y1 <= b.y0 + 1 or b.y1 <= a.y0 + 1
            assert apart, f"{first!r} lies on {second!r}"


@pytest.fixture
def drawn(monkeypatch):
    seen = Drawn()
    draw_figure, draw = Figure.draw, Text.draw

    def remember_figure(figure, renderer):
        seen.figure = figure
        seen.words.clear()  # drawn twice: the first time to find the layout
        return draw_figure(figure, renderer)

    def remember_words(text, renderer):
        if text.get_visible() and text.get_text().strip():
            seen.words.append((text.get_text(), Text.get_window_extent(text, renderer)))
        return draw(text, renderer)

    monkeypatch.setattr(Figure, "draw", remember_figure)
    monkeypatch.setattr(Text, "draw", remember_words)
    return seen
