"""The whole way from files to figures can learn: every family of backbones with every head knows four real pictures by heart.

What is trained on is also what is measured on, so a figure that stays low means that boxes, masks, losses or scoring do not fit together.
"""

import io
import json
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.models.detection.mask_rcnn import MaskRCNN

from foveate.heads import mask_rcnn
from foveate.tasks.settings import TrainSettings
from foveate.verbs.train import train

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"
PICTURES = 4
ENOUGH = 0.9

# Everything to tune: for all, for a head, and for single pairs.
SHORT = {"retinanet": 128, "mask_rcnn": 128, "semantic_fpn": 160}
STEPS = {"retinanet": 300, "mask_rcnn": 400, "semantic_fpn": 200}
RATE = {"fvit_tiny": 5e-4, "t2t_vit_7": 5e-4, "resnet18": 1e-3}
TUNED: dict[tuple[str, str], dict[str, Any]] = {}
FIGURES = {"retinanet": ("box_ap",), "mask_rcnn": ("box_ap", "mask_ap"), "semantic_fpn": ("miou",)}
HEIGHTS = range(420, 481)  # of pictures 640 wide: nearly alike, so that little is padded
CAMVID_LARGE = (0, 1, 3, 4, 5, 8)  # sky, building, road, pavement, tree, car: wider than a place of the finest map


def settings_of(name: str, head: str, data: Path, out: Path) -> TrainSettings:
    values: dict[str, Any] = {
        "data": str(data),
        "model": name,
        "head": head,
        "img_size": SHORT[head],
        **({"crop_size": SHORT[head]} if head == "semantic_fpn" else {}),
        "epochs": STEPS[head],  # a batch is the whole set
        "warmup_epochs": 20,
        "batch_size": PICTURES,
        "lr": RATE[name],
        "lr_reference_batch": 0,
        "min_lr": 1e-6,
        "weight_decay": 0.0,
        "clip_grad": 1.0,
        "drop_path": 0.0 if name != "resnet18" else None,
        "flip": 0.0,
        "color_jitter": 0.0,
        "evaluate_every": STEPS[head],
        "checkpoint_minutes": 0,
        "num_workers": 0,
        "out": out,
    }
    return TrainSettings(**{**values, **TUNED.get((name, head), {})})


def opened(name: str) -> zipfile.ZipFile:
    if not (SHARED / name).exists():
        pytest.skip(f"{name} is not beside the repository")
    return zipfile.ZipFile(SHARED / name)


def coco_part(archive: zipfile.ZipFile, top: str, suits: Callable[[list[dict[str, Any]]], bool], folder: Path) -> Path:
    """The `PICTURES` wide pictures with the fewest objects among those that suit, as training and as held-out set."""
    content = json.loads(archive.read(f"{top}/annotations/instances_train.json"))
    of: dict[int, list[dict[str, Any]]] = {picture["id"]: [] for picture in content["images"]}
    for annotation in content["annotations"]:
        of[annotation["image_id"]].append(annotation)
    fitting = [p for p in content["images"] if p["width"] == 640 and p["height"] in HEIGHTS and suits(of[p["id"]])]
    chosen = sorted(fitting, key=lambda picture: (len(of[picture["id"]]), picture["id"]))[:PICTURES]
    assert len(chosen) == PICTURES
    kept = {"images": chosen, "annotations": [a for p in chosen for a in of[p["id"]]], "categories": content["categories"]}
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    for split in ("train", "val"):
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(kept))
    for picture in chosen:
        (folder / "images" / picture["file_name"]).write_bytes(archive.read(f"{top}/images/{picture['file_name']}"))
    return folder


def cells(folder: Path) -> Path:
    """Blood cells, none smaller than 48 pixels."""
    with opened("bccd_coco.zip") as archive:
        return coco_part(archive, "bccd", lambda found: all(min(one["bbox"][2:]) >= 48 for one in found), folder)


def things(folder: Path) -> Path:
    """Photographs with two or more large outlined objects and no crowds."""

    def suits(found: list[dict[str, Any]]) -> bool:
        return len(found) >= 2 and all(not one["iscrowd"] and min(one["bbox"][2:]) >= 64 for one in found)

    with opened("coco_subset.zip") as archive:
        return coco_part(archive, "coco_subset", suits, folder)


def roads(folder: Path) -> Path:
    """The middle squares of street scenes at the size that is trained on, thin classes left out."""
    with opened("camvid.zip") as archive:
        stems = sorted(Path(name).stem for name in archive.namelist() if name.startswith("camvid/images/train/") and name.endswith(".jpg"))
        for stem in stems[:: len(stems) // PICTURES][:PICTURES]:
            picture = Image.open(io.BytesIO(archive.read(f"camvid/images/train/{stem}.jpg")))
            classes = np.array(Image.open(io.BytesIO(archive.read(f"camvid/masks/train/{stem}.png"))))
            mask = Image.fromarray(np.where(np.isin(classes, CAMVID_LARGE), classes, 255).astype(np.uint8))
            side, (width, height) = SHORT["semantic_fpn"], picture.size
            middle = ((width - height) // 2, 0, (width + height) // 2, height)
            for split in ("train", "val"):
                for kind, image, suffix in (("images", picture, "jpg"), ("masks", mask, "png")):
                    path = folder / kind / split / f"{stem}.{suffix}"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    way = Image.Resampling.NEAREST if kind == "masks" else Image.Resampling.BILINEAR
                    image.resize((side, side), way, box=middle).save(path)
        (folder / "classes.txt").write_bytes(archive.read("camvid/classes.txt"))
    return folder


DATA = {"retinanet": cells, "mask_rcnn": things, "semantic_fpn": roads}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("head", DATA)
@pytest.mark.parametrize("name", RATE)
def test_four_pictures_are_learnt_by_heart(name: str, head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the mask's convolutions on a quarter of 512 regions a picture would take most of the time; for a few objects 64 are plenty
    monkeypatch.setattr(mask_rcnn, "MaskRCNN", partial(MaskRCNN, box_batch_size_per_image=64))
    result = train(settings_of(name, head, DATA[head](tmp_path / "data"), tmp_path / "run"))
    assert result.pictures == PICTURES and result.steps == STEPS[head]
    assert all(result.figures[figure] > ENOUGH for figure in FIGURES[head]), result.figures
