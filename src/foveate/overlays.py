"""What was found on a picture, drawn onto it: boxes, names, instance masks, a class for every pixel.

Lines and letters grow with the picture. One whose longer side is below `SMALLEST_SIDE` is first enlarged by a whole factor without
smoothing, so that names on it can be read. No picture that is handed in is changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from foveate.class_colours import BLACK, WHITE, Colour, class_colours, readable_on
from foveate.lettering import fitted, font

SMALLEST_SIDE = 240
MASK_OPACITY = 0.5
NO_CLASS = 255
Rectangle = tuple[int, int, int, int]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Pen:
    """Widths in pixels and letters for a picture of one size."""

    line: int
    halo: int
    letters: ImageFont.FreeTypeFont

    @classmethod
    def for_picture(cls, picture: Image.Image) -> "Pen":
        side = max(picture.size)
        line = max(1, round(side / 320))
        return cls(line, max(1, line // 3), font(max(11, round(side / 48))))


def draw_objects(
    picture: Image.Image,
    boxes: Array,
    labels: Sequence[int],
    names: Sequence[str],
    *,
    scores: Sequence[float] | None = None,
    masks: Sequence[Array] | None = None,
) -> Image.Image:
    """The picture with a box and a tag for every object, and a half transparent fill with an outline where masks are given.

    Args:
        picture: any mode of 8 bits, any size.
        boxes: (N, 4) left, top, right, bottom in pixels of the picture; parts outside it are not drawn.
        labels: N places in `names`; a class has the same colour on every picture.
        names: the class names.
        scores: N shares of 1, written in percent; higher ones lie above lower ones. Without them, later objects lie above earlier ones.
        masks: N arrays (H, W) of the picture's size, not 0 where the object is.

    Raises:
        ValueError: where the lists differ in length.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    if any(len(column) != len(boxes) for column in (labels, scores, masks) if column is not None):
        raise ValueError(f"found {len(boxes)} boxes, expected as many labels, scores and masks")
    drawn, factor = _enlarged(picture)
    pen, colours = Pen.for_picture(drawn), _colours(names)
    order: list[int] = list(range(len(boxes))) if scores is None else np.argsort(scores, kind="stable").tolist()
    if masks is not None:
        drawn = _fill(drawn, [(_repeat(masks[place], factor), colours[labels[place]]) for place in order], pen)
    draw = ImageDraw.Draw(drawn)
    corners = [_pixels(box * factor, drawn.size) for box in boxes]
    for place in order:
        _frame(draw, corners[place], colours[labels[place]], pen)
    texts = [names[label] for label in labels] if scores is None else [f"{names[a]} {b:.0%}" for a, b in zip(labels, scores, strict=True)]
    taken: list[Rectangle] = []
    tags = {place: _tag(texts[place], corners[place], taken, drawn.size, pen) for place in reversed(order)}
    for place in order:
        _write(draw, tags[place], texts[place], colours[labels[place]], pen)
    return drawn


def draw_classes(picture: Image.Image, classes: Array, class_names: Sequence[str], *, opacity: float = 0.55) -> Image.Image:
    """The picture with every pixel tinted in the colour of its class, and the names of the classes that occur below it.

    Args:
        picture: any mode of 8 bits.
        classes: (H, W) uint8 of the picture's size, places in `class_names`; 255 = none, left as it is.
        class_names: K names.
        opacity: of the tint, 0..1.

    Raises:
        ValueError: where the classes have another size than the picture.
    """
    if classes.shape != picture.size[::-1]:
        raise ValueError(f"found classes of {classes.shape}, expected {picture.size[::-1]}, the picture's height and width")
    enlarged, factor = _enlarged(picture)
    colours = np.zeros((256, 3))
    colours[: len(class_names)] = class_colours(len(class_names))
    places = _repeat(classes, factor)
    weight = np.where(places == NO_CLASS, 0.0, opacity)[..., None]
    tinted = np.asarray(enlarged) * (1 - weight) + colours[places] * weight
    present = [place for place in np.unique(classes).tolist() if place != NO_CLASS]
    return _with_legend(Image.fromarray(tinted.round().astype(np.uint8)), present, class_names)


def colour_mask(classes: Array, num_classes: int) -> Image.Image:
    """A picture of mode P whose numbers are `classes` (H, W) and whose palette shows class k in `class_colours`, 255 (none) in black.

    Raises:
        ValueError: where there are more than 255 classes, which eight bits beside "none" cannot tell apart.
    """
    if num_classes > NO_CLASS:
        raise ValueError(f"found {num_classes} classes, expected at most {NO_CLASS} for a mask of 8 bits")
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[:num_classes] = class_colours(num_classes)
    image = Image.fromarray(np.ascontiguousarray(classes, dtype=np.uint8)).convert("L")
    image.putpalette(palette.tobytes())
    return image


def _colours(names: Sequence[str]) -> list[Colour]:
    return [(red, green, blue) for red, green, blue in class_colours(len(names)).tolist()]


def _enlarged(picture: Image.Image) -> tuple[Image.Image, int]:
    factor = max(1, -(-SMALLEST_SIDE // max(picture.size)))
    rgb = picture.convert("RGB")
    if factor == 1:
        return rgb.copy() if rgb is picture else rgb, 1
    return rgb.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST), factor


def _repeat(values: Array, factor: int) -> Array:
    return values.repeat(factor, axis=0).repeat(factor, axis=1) if factor > 1 else values


def _pixels(box: Array, size: tuple[int, int]) -> Rectangle:
    """The first and last pixels of a box, not far outside the picture, where nothing is seen any more."""
    limits = np.array([*size, *size]) * 2
    left, top, right, bottom = np.clip(box, -limits, limits).tolist()
    first = int(np.floor(left)), int(np.floor(top))
    return *first, max(first[0], int(np.ceil(right)) - 1), max(first[1], int(np.ceil(bottom)) - 1)


def _fill(picture: Image.Image, shapes: Sequence[tuple[Array, Colour]], pen: Pen) -> Image.Image:
    """Masks laid over one another, the first at the bottom."""
    pixels = np.array(picture)
    for mask, colour in shapes:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            continue
        window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        inside, part = mask[window] != 0, pixels[window]
        part[inside] = np.round(part[inside] * (1 - MASK_OPACITY) + np.array(colour) * MASK_OPACITY)
        part[inside & ~_core(inside, pen.line)] = colour
    return Image.fromarray(pixels)


def _core(inside: Array, width: int) -> Array:
    """Where a mask goes on for `width` pixels to all four sides."""
    padded = np.pad(inside, width)
    height, breadth = inside.shape
    middle_rows, middle_columns = slice(width, width + height), slice(width, width + breadth)
    upright = padded[:height, middle_columns] & padded[2 * width :, middle_columns]
    level = padded[middle_rows, :breadth] & padded[middle_rows, 2 * width :]
    return upright & level


def _frame(draw: ImageDraw.ImageDraw, corners: Rectangle, colour: Colour, pen: Pen) -> None:
    """A box in its colour between two thin lines that stand out from it, and so from any picture."""
    left, top, right, bottom = corners
    halo = pen.halo
    draw.rectangle((left - halo, top - halo, right + halo, bottom + halo), None, readable_on(colour), pen.line + 2 * halo)
    draw.rectangle(corners, None, colour, pen.line)


def _tag(text: str, corners: Rectangle, taken: list[Rectangle], size: tuple[int, int], pen: Pen) -> Rectangle:
    """Where a box's tag stands: above the box, inside it or below it, where it hides no tag that is `taken`, and within the picture."""
    left, top, _, bottom = corners
    margin = pen.line + 2
    width = min(int(pen.letters.getlength(text)) + 2 * margin + 1, size[0])
    height = min(sum(pen.letters.getmetrics()) + pen.line, size[1])
    above, start = top - pen.halo - height, min(max(left - pen.halo, 0), size[0] - width)
    wishes = [upper for upper in (above, top, bottom + pen.halo + 1, bottom - height) if 0 <= upper <= size[1] - height]
    places = [(start, upper, start + width - 1, upper + height - 1) for upper in wishes]
    inside = min(max(top, 0), size[1] - height)
    places.append((start, inside, start + width - 1, inside + height - 1))
    free = [place for place in places if not any(_meet(place, other) for other in taken)]
    taken.append((free or places)[0])
    return taken[-1]


def _meet(one: Rectangle, other: Rectangle) -> bool:
    return one[0] <= other[2] and other[0] <= one[2] and one[1] <= other[3] and other[1] <= one[3]


def _write(draw: ImageDraw.ImageDraw, tag: Rectangle, text: str, colour: Colour, pen: Pen) -> None:
    draw.rectangle(tag, colour)
    if tag[3] - tag[1] + 1 < sum(pen.letters.getmetrics()):  # a picture lower than a line of text: the colour alone
        return
    margin = pen.line + 2
    line = fitted(text, tag[2] - tag[0] + 1 - 2 * margin, pen.letters)
    draw.text((tag[0] + margin, tag[1] + pen.line // 2), line, font=pen.letters, fill=readable_on(colour))


def _with_legend(picture: Image.Image, present: Sequence[int], names: Sequence[str]) -> Image.Image:
    """The picture with a white strip below it that names the classes `present`, in rows."""
    pen, colours = Pen.for_picture(picture), _colours(names)
    height = sum(pen.letters.getmetrics())
    gap, pitch = height // 2, height + height // 4
    width = max(picture.width, SMALLEST_SIDE)
    texts = {place: fitted(names[place], width - height - 3 * gap, pen.letters) for place in present}
    spots: list[tuple[int, int]] = []
    x, y = gap, picture.height + gap
    for text in texts.values():
        length = height + gap + int(pen.letters.getlength(text)) + 1
        if x > gap and x + length > width - gap:
            x, y = gap, y + pitch
        spots.append((x, y))
        x += length + 2 * gap
    sheet = Image.new("RGB", (width, y + pitch + gap // 2 if present else picture.height), WHITE)
    sheet.paste(picture)
    draw = ImageDraw.Draw(sheet)
    for (place, text), (left, top) in zip(texts.items(), spots, strict=True):
        draw.rectangle((left, top, left + height - 1, top + height - 1), colours[place], BLACK)
        draw.text((left + height + gap // 2, top), text, font=pen.letters, fill=BLACK)
    return sheet
