"""What is decided for a detector or segmenter where the settings leave it open, and which combinations are refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from foveate.card import ModelCard
from foveate.data.digits import open_digits
from foveate.data.masks import MaskSet
from foveate.data.objects import Annotated, ObjectSet, gathered
from foveate.errors import UserError
from foveate.factory import create_model
from foveate.opening import open_model
from foveate.tasks.choose import prepare
from foveate.tasks.settings import TrainSettings
from foveate.weights.save import write_safetensors

TINY = {"widths": [8, 8, 8, 16], "depths": [1, 1, 1, 1], "stem_width": 8}
SETTINGS = TrainSettings(model="resnet10t")


class Blank(ObjectSet):
    def open(self, index: int) -> Image.Image:
        return Image.new("RGB", tuple(self.sizes[index].tolist()))


class BlankMasks(MaskSet):
    def open(self, index: int) -> Image.Image:
        return Image.new("RGB", (700, 600))


def objects(*sizes: tuple[int, int], outlined: bool = False) -> ObjectSet:
    polygon = ((1.0, 1.0, 9.0, 1.0, 9.0, 9.0),) if outlined else ()
    annotated = [[Annotated(0, (1.0, 1.0, 9.0, 9.0), polygons=polygon)]] * len(sizes)
    found = gathered(annotated, np.array(sizes))
    files = [Path(f"{number}.png") for number in range(len(sizes))]
    return Blank(files, ("cat", "dog"), "train", (17, 18), tuple(range(len(sizes))), np.array(sizes), found)


MASKS = BlankMasks([Path("0.png")], ("sky", "road"), "train", [Path("0.png")], (0, 1))


def test_the_head_follows_the_annotations_and_that_is_said() -> None:
    cases = [
        (objects((60, 50)), "retinanet", "retinanet, since objects have boxes only (--head)"),
        (objects((60, 50), outlined=True), "mask_rcnn", "mask_rcnn, since every object has an outline (--head)"),
        (MASKS, "semantic_fpn", None),
    ]
    for pictures, head, note in cases:
        prepared = prepare(SETTINGS, pictures, "1.2")
        assert prepared.card.head == head
        assert note is None or note in prepared.notes
    named = prepare(replace(SETTINGS, head="retinanet"), objects((60, 50), outlined=True), "1.2")
    assert named.card.head == "retinanet" and not any("--head" in note for note in named.notes)


def test_the_card_says_all_that_is_needed_to_build_the_model_again(tmp_path: Path) -> None:
    settings = TrainSettings(model="fvit_tiny", model_options=TINY, in_chans=1, drop_path=0.3, img_size=64, max_size=100)
    prepared = prepare(settings, objects((60, 50)), "1.2")
    card = prepared.card
    assert (card.model, card.task, card.head, card.num_classes, card.in_chans) == ("fvit_tiny", "detect", "retinanet", 2, 1)
    assert (card.class_names, card.category_ids, card.options, card.foveate) == (("cat", "dog"), (17, 18), TINY, "1.2")
    assert (card.whole_picture.short, card.whole_picture.long, card.whole_picture.channels) == (64, 100, 1)
    assert any(getattr(module, "drop_prob", 0) > 0.2 for module in prepared.model.modules()), "the rate reaches the model"
    write_safetensors(tmp_path / "model.safetensors", prepared.model.state_dict(), card)
    assert open_model(tmp_path)[1] == card
    assert prepare(SETTINGS, MASKS, "").card.category_ids == ()


def test_the_short_side_is_the_median_of_the_pictures_up_to_a_limit() -> None:
    def short(pictures: ObjectSet | MaskSet, **changes: int) -> tuple[int, int]:
        prepared = prepare(replace(SETTINGS, **changes), pictures, "")
        recipe = prepared.card.whole_picture
        said = [note for note in prepared.notes if "--img-size" in note]
        assert len(said) == (0 if "img_size" in changes else 1)
        assert not said or said[0].startswith(f"short side {recipe.short} px")
        return recipe.short, recipe.long

    assert short(objects((300, 200), (100, 120), (90, 400))) == (100, 1333)
    assert short(objects((3000, 2000))) == (800, 1333)
    assert short(MASKS) == (512, 1333)
    assert short(MASKS, img_size=600) == (600, 1333)
    assert short(objects((3000, 2000)), img_size=1500) == (1500, 1500), "the long side is never below the short one"
    assert short(objects((3000, 2000)), max_size=900) == (800, 900)


def batch_norms_stay(model: nn.Module) -> bool:
    model.train()
    return not model.network.bn1.training


def test_detectors_from_weights_keep_their_statistics(tmp_path: Path) -> None:
    path = tmp_path / "classifier.safetensors"
    write_safetensors(path, create_model("resnet10t", num_classes=4).state_dict(), ModelCard("resnet10t", 4))
    tuned = replace(SETTINGS, weights=path)
    assert not batch_norms_stay(prepare(SETTINGS, objects((60, 50)), "").model)
    prepared = prepare(tuned, objects((60, 50)), "")
    assert batch_norms_stay(prepared.model)
    assert any("tensors loaded" in note for note in prepared.notes)
    assert not batch_norms_stay(prepare(tuned, MASKS, "").model), "segmentation has larger batches"
    assert batch_norms_stay(prepare(replace(tuned, freeze_batch_norm=True), MASKS, "").model)
    assert not batch_norms_stay(prepare(replace(tuned, freeze_batch_norm=False), objects((60, 50)), "").model)


def test_the_order_of_tokens_of_the_weights_goes_into_the_card(tmp_path: Path) -> None:
    """From a classifier and from a detector alike."""
    settings = TrainSettings(model="fvit_tiny", model_options=TINY)
    order = {**TINY, "token_order": "released"}
    classifier = tmp_path / "classifier.safetensors"
    write_safetensors(classifier, create_model("fvit_tiny", num_classes=4, **TINY).state_dict(), ModelCard("fvit_tiny", 4, options=order))
    first = prepare(replace(settings, weights=classifier), objects((60, 50)), "")
    assert first.card.options == order
    detector = tmp_path / "detector.safetensors"
    write_safetensors(detector, first.model.state_dict(), first.card)
    second = prepare(replace(settings, weights=detector), objects((60, 50)), "")
    assert second.card.options == order and second.model.network.token_order == "released"


@pytest.mark.parametrize(
    ("pictures", "change", "message"),
    [
        (objects((60, 50)), {"head": "mask_rcnn"}, "head: found mask_rcnn for objects without outlines"),
        (objects((60, 50)), {"head": "semantic_fpn"}, "head: found semantic_fpn for the task 'detect', expected retinanet or mask_rcnn"),
        (MASKS, {"head": "mask_rcnn"}, "head: found mask_rcnn for the task 'segment', expected semantic_fpn"),
        (MASKS, {"head": "retinanet"}, "head: found retinanet for the task 'segment', expected semantic_fpn"),
        (open_digits().train, {"head": "retinanet"}, "head: found retinanet for pictures of one class each"),
        (objects((60, 50)), {"class_weights": "balanced"}, "class_weights: found balanced to detect"),
        (MASKS, {"balanced_sampling": True}, "balanced_sampling: found with the task 'segment'"),
        (MASKS, {"model": "mixer_s16_224"}, "one size only"),
        (MASKS, {"small_images": True}, "resnet10t: found an option it does not take"),
    ],
)
def test_combinations_that_make_no_sense_are_refused_in_one_line(
    pictures: ObjectSet | MaskSet, change: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        prepare(replace(SETTINGS, **change), pictures, "")
    assert "\n" not in str(error.value)
