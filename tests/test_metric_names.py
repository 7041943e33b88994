"""One table says how figures are called."""

import pytest

from foveate.metric_names import HEADLINES, spoken


@pytest.mark.parametrize(
    ("figure", "words"),
    [
        ("top1", "top-1"),
        ("averaged_val_top5", "averaged val top-5"),
        ("val_box_ap50", "val box AP50"),
        ("mask_ap_small", "mask AP small"),
        ("box_ar100", "box AR100"),
        ("val_miou", "val mIoU"),
        ("pixel_accuracy", "pixel accuracy"),
        ("train_loss", "train loss"),
    ],
)
def test_words(figure: str, words: str) -> None:
    assert spoken(figure) == words


def test_headlines_are_called_as_everywhere() -> None:
    assert HEADLINES == {"top1": "top-1", "box_ap": "box AP", "mask_ap": "mask AP", "miou": "mIoU"}
