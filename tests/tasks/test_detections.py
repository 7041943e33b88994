import contextlib
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.ops import roi_align

from foveate.data.objects import Objects, ObjectSet
from foveate.tasks.detections import DetectionResults, gather_objects, picture_results, score_objects

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
CPU = torch.device("cpu")
NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", None, None, "ar100")


def read_set(annotated):
    """The set that a COCO file describes."""
    numbers, categories = sorted(annotated.getImgIds()), sorted(annotated.getCatIds())
    each = [annotated.imgToAnns[number] for number in numbers]
    flat = [one for some in each for one in some]
    boxes = np.array([one["bbox"] for one in flat], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    outlines = tuple(annotated.annToRLE(one)["counts"] for one in flat) if "segmentation" in flat[0] else None
    return ObjectSet(
        files=tuple(Path(annotated.imgs[number]["file_name"]) for number in numbers),
        class_names=tuple(annotated.cats[number]["name"] for number in categories),
        split="val",
        category_ids=tuple(categories),
        picture_ids=tuple(numbers),
        sizes=np.array([(annotated.imgs[number]["width"], annotated.imgs[number]["height"]) for number in numbers]),
        objects=Objects(
            starts=np.cumsum([0, *map(len, each)]),
            boxes=boxes,
            labels=np.array([categories.index(one["category_id"]) for one in flat]),
            crowd=np.array([bool(one["iscrowd"]) for one in flat]),
            area=np.array([one["area"] for one in flat], dtype=np.float64),
            outlines=outlines,
        ),
    )


def made_set(boxes, labels, *, crowd=None, category_ids=(3, 70), pictures=None, outlines=None):
    """Objects on pictures of 200 x 100 pixels, `pictures[i]` the one of object i."""
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    places = np.zeros(len(boxes), dtype=np.int64) if pictures is None else np.array(pictures)
    count = int(places.max(initial=0)) + 1
    return ObjectSet(
        files=tuple(Path(f"{place}.jpg") for place in range(count)),
        class_names=tuple(f"class {number}" for number in category_ids),
        split="val",
        category_ids=tuple(category_ids),
        picture_ids=tuple(1000 + 7 * place for place in range(count)),
        sizes=np.tile([200, 100], (count, 1)),
        objects=Objects(
            starts=np.searchsorted(places, np.arange(count + 1)),
            boxes=boxes,
            labels=np.array(labels, dtype=np.int64),
            crowd=np.zeros(len(boxes), dtype=bool) if crowd is None else np.array(crowd),
            area=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
            outlines=outlines,
        ),
    )


def detection(boxes, labels, scores, **more):
    return {
        "boxes": torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "scores": torch.tensor(scores, dtype=torch.float32),
        **more,
    }


def scored(pictures, detections):
    """Results of a "model" that gives these detections, whose input is twice as wide and thrice as high as the pictures."""
    sizes = torch.from_numpy(pictures.sizes).flip(1) * torch.tensor([3, 2])

    def forward(images, sizes):
        assert images.dtype == torch.float32 and torch.is_inference_mode_enabled()
        return [
            {**detections[int(image[0, 0, 0])], "boxes": detections[int(image[0, 0, 0])]["boxes"] * torch.tensor([2, 3, 2, 3])}
            for image in images
        ]

    places = torch.arange(len(pictures)).split(3)
    batches = [{"image": at[:, None, None, None].float().expand(-1, 3, 4, 4), "size": sizes[at], "index": at} for at in places]
    return score_objects(forward, batches, pictures, CPU)


def independent(annotations, results_json, folder, kind="bbox"):
    """pycocotools on the user's own file and on the results file."""
    (folder / "results.json").write_text(results_json)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(annotations)
        evaluation = COCOeval(truth, truth.loadRes(str(folder / "results.json")), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: value for name, value in zip(NAMES, evaluation.stats.tolist(), strict=False) if name and value > -1}


@pytest.fixture(params=["bccd", "coco_subset"])
def annotations(request, tmp_path):
    archive = DATA / {"bccd": "bccd_coco.zip", "coco_subset": "coco_subset.zip"}[request.param]
    if not archive.exists():
        pytest.skip(f"{archive.name} is not here")
    with zipfile.ZipFile(archive) as content:
        return content.extract(f"{request.param}/annotations/instances_val.json", tmp_path)


def perfect(pictures):
    """Detections that are the truth, with its outlines as entries have them."""
    objects, found = pictures.objects, []
    for place, number in enumerate(pictures.picture_ids):
        there = [one for one in range(*objects.of(place).indices(len(objects.labels))) if not objects.crowd[one]]
        size = tuple(pictures.sizes[place].tolist())
        given = detection(objects.boxes[there], objects.labels[there], [1.0] * len(there))
        entries = picture_results(given, number, size, (1.0, 1.0), pictures.category_ids)
        for entry, one in zip(entries, there, strict=True):
            if objects.outlines is not None:
                entry["segmentation"] = {"size": [size[1], size[0]], "counts": objects.outlines[one].decode()}
        found.append(entries)
    return DetectionResults(tuple(range(len(pictures))), tuple(found), pictures, objects.outlines is not None)


class TestRealAnnotations:
    def test_the_truth_scores_one(self, annotations):
        with contextlib.redirect_stdout(io.StringIO()):
            pictures = read_set(COCO(annotations))
        results = perfect(pictures)
        figures = results.figures()
        for kind in results.kinds:
            assert [figures[f"{kind}_{name}"] for name in ("ap", "ap50", "ap75")] == pytest.approx([1.0] * 3, abs=1e-12)
        assert ("mask_ap" in figures) == (pictures.objects.outlines is not None)
        assert all(row["box_ap"] == pytest.approx(1.0) for row in results.per_class() if row["count"])

    def test_poor_detections_score_as_pycocotools_scores_the_file(self, annotations, tmp_path):
        random = np.random.default_rng(0)
        with contextlib.redirect_stdout(io.StringIO()):
            pictures = read_set(COCO(annotations))
        objects, detections = pictures.objects, []
        for place in range(len(pictures)):
            there = objects.of(place)
            boxes = np.repeat(objects.boxes[there], 2, axis=0)
            boxes = boxes + random.normal(0, 0.08, boxes.shape) * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
            labels = np.where(random.random(len(boxes)) < 0.1, 0, np.repeat(objects.labels[there], 2))
            masks = torch.from_numpy(random.random((len(boxes), 1, 28, 28)) ** 0.5)
            boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
            keep = random.random(len(boxes)) < 0.6
            detections.append(detection(boxes[keep], labels[keep], random.random(keep.sum()).round(1), masks=masks[keep].float()))
        results = scored(pictures, detections)
        figures = results.figures()
        assert 0.1 < figures["box_ap"] < 0.9
        for kind, name in zip(results.kinds, ("bbox", "segm"), strict=False):
            expected = independent(annotations, results.to_coco_json(kind), tmp_path, name)
            assert {f"{kind}_{key}": value for key, value in expected.items()} == pytest.approx(
                {key: value for key, value in figures.items() if key.startswith(kind)}, abs=1e-12
            )
            rows = [row[f"{kind}_ap"] for row in results.per_class() if row[f"{kind}_ap"] is not None]
            assert np.mean(rows) == pytest.approx(figures[f"{kind}_ap"])
        both = independent(annotations, results.to_coco_json(), tmp_path, "segm") if "mask" in results.kinds else {}
        assert both.get("ap") == figures.get("mask_ap"), "with boxes in the file too, masks score the same but for the sizes"

    def test_masks_that_are_right_down_to_the_grid_score_nearly_one(self, annotations):
        """What Mask R-CNN is trained towards (torchvision's targets at its input's size), pasted back onto the picture."""
        with contextlib.redirect_stdout(io.StringIO()):
            pictures = read_set(COCO(annotations)).take(range(25), "val")
        if not pictures.has_outlines:
            pytest.skip("boxes only")
        detections = []
        for place in range(len(pictures)):
            there = np.flatnonzero((pictures.pictures == place) & ~pictures.objects.crowd)
            width, height = pictures.sizes[place].tolist()
            boxes = torch.from_numpy(pictures.objects.boxes[there]).float()
            full = [torch.from_numpy(pictures.mask(one)).float().repeat_interleave(2, 0).repeat_interleave(2, 1) for one in there]
            rows = torch.cat((torch.arange(len(there))[:, None], boxes * 2), dim=1).float()
            full = torch.stack(full)[:, None] if full else torch.zeros(0, 1, 2 * height, 2 * width)
            grids = roi_align(full, rows, (28, 28), 1.0, aligned=False)
            detections.append(detection(boxes, pictures.objects.labels[there], [1.0] * len(there), masks=grids))
        figures = scored(pictures, detections).figures()
        assert figures["mask_ap"] > 0.98 and figures["mask_ap_small"] > 0.97


class TestClosedForms:
    BOX = (20.0, 10.0, 60.0, 50.0)

    def figures(self, pictures, *detections):
        return scored(pictures, detections).figures()

    @pytest.mark.parametrize(("shift", "right"), [(0.0, 10), (40 * 0.26 / 1.74, 5), (40 / 3, 1), (14.0, 0)])
    def test_ap_is_the_share_of_thresholds_that_the_overlap_reaches(self, shift, right):
        """A box moved by s of its width w overlaps by (w - s) / (w + s): 1, 0.74, 0.5, 0.48."""
        left, top, *_ = self.BOX
        figures = self.figures(made_set([self.BOX], [1]), detection([[left + shift, top, left + shift + 40, top + 40]], [1], [0.7]))
        assert figures["box_ap"] == pytest.approx(right / 10)
        assert [figures["box_ap50"], figures["box_ap75"]] == pytest.approx([float(right > 0), float(right > 5)])
        assert figures["box_ar100"] == pytest.approx(right / 10)

    def test_one_wrong_box_surer_than_the_right_one_halves_the_precision(self):
        found = detection([[100, 10, 140, 50], self.BOX], [0, 0], [0.9, 0.5])
        assert self.figures(made_set([self.BOX], [0]), found)["box_ap"] == pytest.approx(0.5)

    def test_the_other_class_is_wrong(self):
        assert self.figures(made_set([self.BOX], [0]), detection([self.BOX], [1], [0.9]))["box_ap"] == 0

    def test_a_crowd_is_neither_missed_nor_wrong(self):
        pictures = made_set([self.BOX, (100, 0, 200, 100)], [0, 0], crowd=[False, True])
        alone = detection([self.BOX], [0], [0.5])
        among = detection([(110, 10, 130, 40), (150, 50, 190, 90), self.BOX], [0, 0, 0], [0.9, 0.8, 0.5])
        assert self.figures(pictures, alone)["box_ap"] == self.figures(pictures, among)["box_ap"] == pytest.approx(1)
        assert scored(pictures, [alone]).per_class()[0]["count"] == 1

    def test_a_degenerate_box_of_the_annotations_counts_as_missed(self):
        figures = self.figures(made_set([self.BOX, (5, 5, 5, 9)], [0, 0]), detection([self.BOX], [0], [0.9]))
        assert figures["box_ap"] == pytest.approx(51 / 101), "right up to a recall of a half: 51 of 101 points"

    def test_no_results_at_all_score_nothing(self):
        pictures = made_set([self.BOX, self.BOX], [0, 1], pictures=[0, 2])
        results = scored(pictures, [detection([], [], [])] * 3)
        assert results.figures()["box_ap"] == results.figures()["box_ar100"] == 0
        assert [row["box_ap"] for row in results.per_class()] == [0, 0]
        assert results.to_coco_json() == "[]" and len(results) == 3

    def test_sizes_without_objects_are_absent_and_explained(self):
        results = scored(made_set([self.BOX], [0]), [detection([self.BOX], [0], [1.0])])
        assert set(results.figures()) == {"box_ap", "box_ap50", "box_ap75", "box_ap_medium", "box_ar100"}
        notes = results.notes()
        assert len(notes) == 2 and "no object is small (below 32 x 32 pixels" in notes[0] and "no object is large" in notes[1]
        assert results.per_class()[1] == {"class": "class 70", "count": 0, "box_ap": None, "box_ap50": None}

    def test_nothing_to_be_found_has_no_figures_and_says_so(self):
        results = scored(made_set([self.BOX], [0], crowd=[True]), [detection([self.BOX], [0], [1.0])])
        assert results.figures() == {}
        assert results.notes() == ("val: the annotations hold no object to be found, so there is no AP",)

    def test_masks_are_scored_also_where_none_was_found_and_crowds_have_no_outline(self):
        mask = np.zeros((100, 200), dtype=np.uint8)
        mask[10:50, 20:60] = 1
        outline = run_lengths.encode(np.asfortranarray(mask))["counts"]
        pictures = made_set([self.BOX, (100, 0, 200, 100)], [0, 0], crowd=[False, True], outlines=(outline, None))
        assert self.figures(pictures, detection([], [], [], masks=torch.zeros(0, 1, 28, 28)))["mask_ap"] == 0
        with_one_in_the_crowd = detection([(110, 10, 190, 90), self.BOX], [0, 0], [0.9, 0.5], masks=torch.ones(2, 1, 28, 28))
        assert self.figures(pictures, with_one_in_the_crowd)["mask_ap"] == pytest.approx(1)

    def test_masks_without_outlines_to_compare_with_are_said_to_be_unscored(self):
        results = scored(made_set([self.BOX], [0]), [detection([self.BOX], [0], [1.0], masks=torch.ones(1, 1, 28, 28))])
        assert "mask_ap" not in results.figures() and "masks are not scored" in results.notes()[-1]
        assert "segmentation" in json.loads(results.to_coco_json())[0] and "bbox" not in json.loads(results.to_coco_json("mask"))[0]


class TestEntries:
    def test_boxes_come_back_to_the_picture_and_stay_inside(self):
        given = detection([[-4.0, 6.0, 30.0, 90.0], [50.0, 30.0, 500.0, 400.0]], [1, 0], [0.25, 0.75])
        entries = picture_results(given, 42, (200, 100), (0.5, 1 / 3), (3, 70))
        assert entries == [
            {"image_id": 42, "category_id": 3, "bbox": [25.0, 10.0, 175.0, 90.0], "score": 0.75},
            {"image_id": 42, "category_id": 70, "bbox": [0.0, 2.0, 15.0, 28.0], "score": 0.25},
        ]

    def test_only_the_hundred_surest_are_kept(self):
        scores = np.random.default_rng(0).permutation(250) / 250
        given = detection([[1, 1, 9, 9]] * 250, [0] * 250, scores, masks=torch.zeros(250, 1, 28, 28))
        kept = [entry["score"] for entry in picture_results(given, 1, (10, 10), (1.0, 1.0), (1,))]
        assert kept == pytest.approx(sorted(scores, reverse=True)[:100])

    def test_a_mask_follows_its_box_to_the_picture(self):
        given = detection([[10, 30, 50, 90]], [0], [0.9], masks=torch.ones(1, 1, 28, 28))
        (entry,) = picture_results(given, 1, (200, 100), (2.0, 0.5), (1,))
        mask = run_lengths.decode(entry["segmentation"])
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert mask.shape == (100, 200) and entry["segmentation"]["size"] == [100, 200]
        assert (rows[0], rows[-1], columns[0], columns[-1]) == (15, 44, 20, 99)


def test_gathering_sorts_and_insists_on_each_picture_once():
    fabric = Fabric(accelerator="cpu", devices=1)
    pictures = made_set([(1, 1, 9, 9)] * 3, [0, 1, 0], pictures=[0, 1, 2])
    results = scored(pictures, [detection([(1, 1, 9, 9)], [label], [0.5]) for label in (0, 1, 0)])
    shuffled = DetectionResults((2, 0, 1), tuple(results.found[place] for place in (2, 0, 1)), pictures)
    assert gather_objects(fabric, shuffled).found == results.found
    for index in ((0, 1, 1), (0, 1, 3)):
        with pytest.raises(RuntimeError, match="missing or double"):
            gather_objects(fabric, DetectionResults(index, results.found, pictures))


TWO_PROCESSES = """
import numpy as np, sys
from foveate.tasks.detections import DetectionResults, gather_objects
from foveate.tasks.devices import Devices, launch
from foveate.tasks.pixels import PixelResults, gather_pixels

def work(fabric):
    index = tuple(range(5))[fabric.global_rank :: 2]
    found = tuple([{"score": place}] for place in index)
    objects = gather_objects(fabric, DetectionResults(index, found, range(5), with_masks=fabric.global_rank == 1))
    pixels = gather_pixels(fabric, PixelResults(np.full((2, 2), 2**40 + fabric.global_rank), index, ("a", "b")), 5)
    try:
        gather_pixels(fabric, PixelResults(np.zeros((2, 2)), (0,), ("a", "b")), 2)
    except RuntimeError as error:
        print(error, flush=True)
    if fabric.global_rank == 1:
        scores = [entry["score"] for some in objects.found for entry in some]
        print(objects.index, scores, objects.with_masks, pixels.counts.tolist(), flush=True)

if __name__ == "__main__":
    launch(Devices("cpu", devices=2), work)
"""


@pytest.mark.slow
def test_real_processes_have_the_same_results(tmp_path):
    (tmp_path / "two.py").write_text(TWO_PROCESSES)
    done = subprocess.run([sys.executable, tmp_path / "two.py"], capture_output=True, text=True, check=True)
    sums = [[2**41 + 1] * 2] * 2
    assert f"(0, 1, 2, 3, 4) [0, 1, 2, 3, 4] True {sums}" in done.stdout
    assert done.stdout.count("evaluation saw 2 results for 2 pictures: some are missing or double") == 2
