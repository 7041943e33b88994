"""What came out of a training, for people and for programs."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from foveate.metric_names import HEADLINES, spoken


@dataclass(frozen=True)
class TrainResult:
    """What came out of a training.

    Args:
        run: the run folder.
        model: name of the model.
        parameters: their number, frozen tables included.
        pictures: held-out pictures that the figures were measured on.
        figures: of the shipped weights, shares of 1: `loss`, `top1` and perhaps `top5`; `box_ap`, `mask_ap` ...; `miou` ...; with averaging
            also `last_top1`... of the raw ones.
        steps: weight updates.
        epochs: passes over the training pictures that they make up.
        minutes: of wall-clock time, evaluations included.
        images_per_second: training pictures per second of the last epoch, over all processes.
        replaced: broken training pictures, and how often another one took their place.
    """

    run: Path
    model: str
    parameters: int
    pictures: int
    figures: dict[str, float]
    steps: int
    epochs: float
    minutes: float
    images_per_second: float
    replaced: dict[str, int]

    def __str__(self) -> str:
        names = {name: spoken(name) for name in (*HEADLINES, "top5", "box_ap50", "pixel_accuracy")}
        names |= {f"last_{name}": f"{words} before averaging" for name, words in HEADLINES.items()}
        shares = [f"{words} {self.figures[name]:.2%}" for name, words in names.items() if name in self.figures]
        shares += [f"loss {self.figures['loss']:.4f}"] if "loss" in self.figures else []
        text = f"{self.model}: {', '.join(shares)} on {self.pictures} held-out pictures"
        text += f"; {self.steps} steps ({round(self.epochs, 2):g} epochs) in {self.minutes:.1f} min"
        text += f", {self.images_per_second:.0f} pictures/s; run folder {self.run}"
        if self.epochs < 1:
            text += f"\nit ended after {int(100 * self.epochs)}% of its first epoch; --max-minutes or --steps can give it more"
        if self.replaced:
            text += f"\n{len(self.replaced)} broken training pictures, each time replaced by another: {'; '.join(self.replaced)}"
        return text

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "run": str(self.run)}, indent=2)
