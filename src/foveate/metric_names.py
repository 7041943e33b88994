"""How the figures of models are called, in one table.

Tasks measure them, plots draw them and verbs tell them. Of these `tasks` and `plots` may not see each other, so the names stand below
both, on the ground floor.
"""

WORDS = {"top1": "top-1", "top5": "top-5", "miou": "mIoU", "iou": "IoU", "ap": "AP", "ap50": "AP50", "ap75": "AP75", "ar100": "AR100"}


def spoken(figure: str) -> str:
    """A figure or a column of metrics in words: `averaged_val_box_ap50` is "averaged val box AP50"."""
    return " ".join(WORDS.get(word, word) for word in figure.split("_"))


# Figures that stand for a model, shares of 1, and how they are called.
HEADLINES = {name: spoken(name) for name in ("top1", "box_ap", "mask_ap", "miou")}
