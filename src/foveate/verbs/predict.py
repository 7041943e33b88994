"""`foveate predict`: what a trained model sees on pictures."""

from pathlib import Path
from typing import Any

from foveate.device import choose_device
from foveate.opening import open_model
from foveate.verbs.own_options import require_own_options
from foveate.verbs.picture_files import check_writable, find_pictures
from foveate.verbs.predict_classes import predict_classes
from foveate.verbs.predictions import Job, Predictions
from foveate.whole_files import write_text

# The options that only models of one task understand.
OWN_OPTIONS = {
    "classify": ("top", "batch_size"),
    "detect": ("threshold", "out", "results", "annotations"),
    "segment": ("out", "flip", "tile"),
}


def predict(
    source: Path,
    pictures: list[Path],
    *,
    top: int | None = None,
    batch_size: int | None = None,
    threshold: float | None = None,
    out: Path | None = None,
    results: Path | None = None,
    annotations: Path | None = None,
    flip: bool = False,
    tile: int = 0,
    csv: Path | None = None,
    sheet: Path | None = None,
    device: str = "auto",
) -> Predictions[Any]:
    """Say what is on pictures: classes with probabilities, objects with boxes, or a class for every pixel, as the model was trained to.

    Pictures are prepared as the model's card says, its class names come from there too. A picture that cannot be read is named at the end,
    the others are done all the same.

    Args:
        source: a run folder, or a weight file written by this project.
        pictures: picture files, and folders that are searched through and through.
        top: classification: how many classes to name per picture, the most probable first; at most all that the model knows. Default 5.
        batch_size: classification: pictures per forward pass; other models take one at a time. Default 32.
        threshold: detection: least score of an object, 0 to 1; detectors themselves give none below 0.05. Default 0.5.
        out: detection and segmentation: a folder to write pictures into, made where it is absent. Of a.jpg a detector writes a_objects.png
            (boxes, names, scores, masks); a segmenter a_classes.png (numbers of classes, from 0 in the model's order), a_colours.png and
            a_overlay.png.
        results: detection: a COCO results file (JSON) to write as well, all that the model finds whatever the threshold, the surest 100 per
            picture. image_id counts the given pictures from 1, as FILE.images.json beside it tells, unless annotations are given.
        annotations: detection: COCO annotations (JSON) that tell the image_id and category_id in the results file, by the file names of
            pictures and the names of classes.
        flip: segmentation: average with what the model says to the mirrored picture; takes twice the time.
        tile: segmentation: pixels on a side of overlapping tiles to cut the model's input into, after resizing, for little memory; best a
            multiple of 32. 0: whole pictures.
        csv: a CSV file to write as well: a row per picture, per object, or per picture and class on it.
        sheet: a PNG to write as well: the first 96 pictures with what was found.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto" for an accelerator where there is one.

    Raises:
        UserError: for a path that does not exist, a folder without pictures, an option of another task, an unusable device or source, files
            that cannot be written, or output that is not finite.
    """
    check_writable(csv, sheet)
    files, notes = find_pictures(pictures)
    model, card = open_model(source)
    values = {"top": top, "batch_size": batch_size, "threshold": threshold, "out": out, "results": results, "annotations": annotations}
    given = {name: value for name, value in {**values, "flip": flip or None, "tile": tile or None}.items() if value is not None}
    require_own_options(given, OWN_OPTIONS, card.task, source)
    place = choose_device(device)
    result = _predictions(Job(model.to(place), card, place, tuple(files), tuple(notes), sheet), given)
    if csv is not None:
        write_text(csv, result.to_csv())
    return result


def _predictions(job: Job, options: dict[str, Any]) -> Predictions[Any]:
    """What suits the model's task; detection and segmentation load libraries that the naming of a picture can do without."""
    if job.card.task == "detect":
        from foveate.verbs.predict_objects import predict_objects  # noqa: PLC0415

        return predict_objects(job, **options)
    if job.card.task == "segment":
        from foveate.verbs.predict_masks import predict_masks  # noqa: PLC0415

        return predict_masks(job, **options)
    return predict_classes(job, **options)
