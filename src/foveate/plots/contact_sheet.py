"""Pictures in rows with a caption under each."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from foveate.lettering import fitted, font
from foveate.whole_files import whole_file

WRONG, RIGHT = (196, 22, 28), (107, 107, 107)
TEXT_HEIGHT = 19


def contact_sheet(
    pictures: Sequence[Image.Image],
    captions: Sequence[str],
    wrong: Sequence[bool] | None,
    out: Path,
    *,
    columns: int = 8,
    side: int = 168,
    title: str = "",
) -> Path:
    """Pictures in rows with a caption under each; wrong ones have a red frame and the word "wrong", right ones the word "right".

    Small pictures are enlarged by a whole factor without smoothing, so that every pixel stays a sharp square; large ones are reduced.

    Args:
        pictures: any mode and size.
        captions: one per picture, may hold several lines; a line wider than its cell ends in an ellipsis.
        wrong: one truth value per picture; None where nothing is known.
        out: the PNG.
        columns: pictures per row, fewer where there are fewer pictures.
        side: pixels of the square that holds a picture.
        title: usually the model's name.

    Raises:
        ValueError: where the lists differ in length or are empty.
    """
    if not pictures or len(captions) != len(pictures) or (wrong is not None and len(wrong) != len(pictures)):
        raise ValueError(f"contact sheet: found {len(pictures)} pictures and {len(captions)} captions, expected as many, at least one")
    texts = [caption.split("\n") for caption in captions]
    gap, top = 14, 46 if title else 14
    cell = side + gap, side + TEXT_HEIGHT * (max(map(len, texts)) + (wrong is not None)) + 10 + gap
    columns = min(columns, len(pictures))
    width = max(columns * cell[0] + gap, int(font(18).getlength(title) * 1.15) + 2 * gap)
    sheet = Image.new("RGB", (width, top + -(-len(pictures) // columns) * cell[1]), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((gap, 12), title, font=font(18, bold=True), fill="black")
    for index, (picture, lines) in enumerate(zip(pictures, texts, strict=True)):
        left, upper = gap + index % columns * cell[0], top + index // columns * cell[1]
        scaled = _scale(picture, side)
        sheet.paste(scaled, (left + (side - scaled.width) // 2, upper + (side - scaled.height) // 2))
        written = upper + side + 8
        if wrong is not None:
            _judge(draw, (left, upper), side, wrong[index])
            written += TEXT_HEIGHT
        for number, line in enumerate(lines):
            draw.text((left, written + number * TEXT_HEIGHT), fitted(line, side, font(14)), font=font(14), fill="black")
    with whole_file(out) as part:
        sheet.save(part, format="PNG")
    return out


def _scale(picture: Image.Image, side: int) -> Image.Image:
    scale = side / max(picture.size)
    sharp = scale >= 2
    width, height = (length * int(scale) if sharp else max(1, round(length * scale)) for length in picture.size)
    return picture.convert("RGB").resize((width, height), Image.Resampling.NEAREST if sharp else Image.Resampling.LANCZOS)


def _judge(draw: ImageDraw.ImageDraw, corner: tuple[int, int], side: int, wrong: bool) -> None:
    """Frames a picture and writes under it whether the prediction is right."""
    margin, width, colour = (5, 5, WRONG) if wrong else (2, 1, RIGHT)
    draw.rectangle(
        (corner[0] - margin, corner[1] - margin, corner[0] + side + margin - 1, corner[1] + side + margin - 1), None, colour, width
    )
    draw.text((corner[0], corner[1] + side + 8), "✗ wrong" if wrong else "✓ right", font=font(14, bold=True), fill=colour)
