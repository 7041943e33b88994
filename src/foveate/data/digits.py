"""The embedded digits: 1,797 real handwritten digits of 8x8 pixels (source, licence: digits.md), for a first run without download."""

from pathlib import Path

import numpy as np

from foveate.data.holdout import held_out
from foveate.data.pictures import ArrayPictures, PictureSplits


def open_digits() -> PictureSplits:
    """The digits as grey pictures with values 0 to 255, 20% of each class held out as `val`; the split never changes."""
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as stored:
        sixteenths, labels = stored["pictures"], stored["labels"].astype(np.int64)
    pixels = np.rint(sixteenths * (255 / 16)).astype(np.uint8)
    class_names = tuple("0123456789")
    in_val = np.array(held_out([str(index) for index in range(len(labels))], labels.tolist(), 0.2))
    train, val = (
        ArrayPictures(files=(), labels=tuple(labels[part].tolist()), class_names=class_names, split=split, pixels=pixels[part])
        for split, part in (("train", ~in_val), ("val", in_val))
    )
    note = "the embedded handwritten digits, 20% of each class held out as val"
    return PictureSplits(train=train, val=val, test=None, source="digits", class_names=class_names, notes=(note,))
