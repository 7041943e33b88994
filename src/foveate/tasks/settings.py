"""Everything a training can be told: one flat table, read by the command line, the recipes and Python alike."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from foveate.errors import UserError, did_you_mean

Strategy = Literal["auto", "ddp", "fsdp"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Accelerator = Literal["auto", "cpu", "gpu", "mps"]
TaskName = Literal["auto", "classify", "detect", "segment"]
Head = Literal["auto", "retinanet", "mask_rcnn", "semantic_fpn"]

PATHS = ("weights", "list_file", "out", "resume")
RANGES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("epochs batch_size accumulate devices nodes in_chans evaluate_every", lambda value: value >= 1, "1 or more"),
    ("cooldown_epochs warmup_epochs max_minutes lr_reference_batch seed checkpoint_every_steps", lambda value: value >= 0, "0 or more"),
    ("min_lr warmup_lr weight_decay clip_grad mixup cutmix checkpoint_minutes", lambda value: value >= 0, "0 or more"),
    ("lr layer_decay backbone_lr_scale", lambda value: value > 0, "a number above 0"),
    ("mixup_switch smoothing momentum", lambda value: 0 <= value <= 1, "a share from 0 to 1"),
    ("steps", lambda value: value >= 0, "0 or more"),
    ("scale_low scale_high", lambda value: value > 0, "a factor above 0"),
    ("max_size", lambda value: value >= 16, "16 pixels or more"),
    ("crop_size", lambda value: value is None or value >= 16, "16 pixels or more"),
    ("ema_decay", lambda value: 0 <= value < 1, "a decay from 0 (off) to below 1, such as 0.9999"),
    ("num_workers", lambda value: value is None or value >= 0, "0 or more"),
    ("img_size", lambda value: value is None or value >= 16, "16 pixels or more"),
)


@dataclass(frozen=True)
class TrainSettings:
    """How one training runs. The defaults are the published ImageNet rules of FViT, with fewer epochs.

    On the command line the recipes "detect" and "segment" take the place of these defaults where the data is of that task and no recipe is
    named that says its own.

    Args:
        data: folder of pictures, or "digits" for the embedded set.
        task: what to learn: "classify" a picture, "detect" objects, "segment" classes of pixels; "auto": what the data is made for.
        head: on the backbone: "retinanet", "mask_rcnn" or "semantic_fpn"; "auto": Mask R-CNN where every object has an outline, RetinaNet
            where one has only a box, Semantic FPN for masks.
        model: a name of `foveate models`, or any name of timm.
        model_options: further arguments of the model, as `create_model` takes them.
        weights: weight file or run folder to start from (fine-tuning), of a classifier or of the same task; None starts from scratch.
        img_size: to classify, the side of the square input in pixels; None: 224, or the pictures' own size where their median side is at
            most 64. To detect and segment, the short side that pictures are resized to; None: their median short side, at most 800 (detect)
            or 512 (segment).
        max_size: to detect and segment, the longest that a picture's long side may become, in pixels.
        crop_size: to segment, the side in pixels of the random squares trained on; None: the short side.
        in_chans: channels that pictures are read with: 1 (grey), 3 (RGB) or 4 (RGBA).
        small_images: the model's form for small pictures, which throws less away at its start; None: on to classify inputs of at most 64
            pixels.
        val_fraction: share of the pictures held out where the data has no val or test split of its own.
        list_file: lines of `file label` for a flat folder of pictures.
        epochs: passes over the training pictures, warm-up included, cool-down excluded.
        cooldown_epochs: passes after them at the smallest learning rate.
        warmup_epochs: passes at the start during which the learning rate rises in a straight line; a fifth of the epochs where it would be
            more than half of them.
        steps: weight updates of the whole training, instead of `epochs`; 0: by epochs.
        max_minutes: end after this many minutes of wall-clock time; the schedule is shortened so that it still finishes. 0: no limit.
        batch_size: pictures per process and step.
        accumulate: batches whose gradients are added up before the weights move.
        optimizer: "adamw", or "sgd" with Nesterov momentum.
        lr: learning rate per `lr_reference_batch` pictures; the rate used is lr * pictures per weight update / lr_reference_batch.
        lr_reference_batch: see lr; 0 takes lr as it is.
        schedule: after the warm-up "cosine", "steps" (a tenth after each of `step_epochs`) or "poly" (power 0.9 of the share that is left).
        step_epochs: see schedule.
        min_lr: learning rate at the end of the cosine and of poly, not scaled.
        warmup_lr: learning rate at the very start, not scaled.
        weight_decay: on weight matrices and kernels; never on biases, norms, tables and Gabor parameters.
        layer_decay: factor on the learning rate per layer going down from the head; 1 is off.
        momentum: of "sgd".
        backbone_lr_scale: factor on the learning rate of everything but the last linear layer.
        freeze_backbone: train the last linear layer only, or a detector's or segmenter's head; everything else stays as it is.
        freeze_batch_norm: to detect and segment, batch norms of the backbone keep their statistics; None: where a detector starts from
            weights.
        clip_grad: largest norm of the gradient; 0 is off.
        drop_path: probability with which a block is skipped for a picture; None leaves the model's own value.
        drop: to classify, dropout probability before the classifier; None leaves the model's own value.
        mixup: to classify, alpha of Mixup's Beta distribution; 0 is off.
        cutmix: to classify, alpha of CutMix's Beta distribution; 0 is off.
        mixup_switch: probability of CutMix where both are on.
        smoothing: to classify, label smoothing, 0 to 1.
        class_weights: to classify and segment, "balanced" weighs each class in the loss by the inverse of its frequency (mean 1 over
            pictures, or over pixels).
        balanced_sampling: to classify, draw every class equally often.
        crop: to classify, "resized" cuts a random part and resizes it, as published; "pad", for small pictures, shifts the whole one by
            some pixels.
        scale_low: to detect and segment, the smallest random factor on the picture's size.
        scale_high: the largest one.
        scale_min: smallest share of the picture's area that "resized" cuts.
        padding: largest shift of "pad", in pixels of the input.
        flip: probability of a left-right flip.
        rand_augment: to classify, magnitude of RandAugment, 0 to 10; 0 is off.
        rand_augment_layers: operations of RandAugment per picture.
        color_jitter: strength of brightness, contrast and saturation changes; to classify only where RandAugment is off, as published.
        erasing: to classify, probability that a random rectangle is replaced by noise.
        ema_decay: decay of the moving average of the weights per update, which is then the shipped model; 0 is off.
        precision: number format of the forward pass; "auto": bf16 on CUDA devices that have it, otherwise fp32.
        grad_checkpointing: recompute activations in the backward pass: less memory, more time.
        compile: compile the model with torch.compile.
        accelerator: kind of device.
        devices: processes (devices) per machine.
        nodes: machines.
        strategy: how several processes share the work: "ddp" copies the model, "fsdp" shards it.
        num_workers: processes that read pictures, per training process; None chooses.
        seed: of the initialisation, data order, augmentation and dropout.
        deterministic: use deterministic algorithms only; an operation that has none ends the run, named.
        evaluate_every: epochs between evaluations; the last epoch is always evaluated.
        checkpoint_minutes: minutes between resumable checkpoints, which are also written after every evaluation; 0 is off.
        checkpoint_every_steps: weight updates between resumable checkpoints; 0 is off.
        tensorboard: write TensorBoard events into the run folder too.
        out: run folder to make; None: runs/<data>-<model>-<n>.
        resume: run folder to continue exactly where its last checkpoint stands; its settings are taken over.
    """

    data: str = ""
    task: TaskName = "auto"
    head: Head = "auto"
    model: str = "fvit_tiny"
    model_options: dict[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    img_size: int | None = None
    max_size: int = 1333
    crop_size: int | None = None
    in_chans: int = 3
    small_images: bool | None = None
    val_fraction: float = 0.2
    list_file: Path | None = None

    epochs: int = 100
    cooldown_epochs: int = 0
    warmup_epochs: float = 5.0
    steps: int = 0
    max_minutes: float = 0.0
    batch_size: int = 64
    accumulate: int = 1

    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    lr_reference_batch: int = 512
    schedule: Literal["cosine", "steps", "poly"] = "cosine"
    step_epochs: list[int] = field(default_factory=list)
    min_lr: float = 1e-5
    warmup_lr: float = 1e-7
    weight_decay: float = 0.05
    layer_decay: float = 1.0
    momentum: float = 0.9
    backbone_lr_scale: float = 1.0
    freeze_backbone: bool = False
    freeze_batch_norm: bool | None = None
    clip_grad: float = 0.0

    drop_path: float | None = None
    drop: float | None = None
    mixup: float = 0.8
    cutmix: float = 1.0
    mixup_switch: float = 0.5
    smoothing: float = 0.1
    class_weights: Literal["none", "balanced"] = "none"
    balanced_sampling: bool = False
    crop: Literal["resized", "pad"] = "resized"
    scale_low: float = 1.0
    scale_high: float = 1.0
    scale_min: float = 0.08
    padding: int = 4
    flip: float = 0.5
    rand_augment: int = 9
    rand_augment_layers: int = 2
    color_jitter: float = 0.4
    erasing: float = 0.25
    ema_decay: float = 0.0

    precision: Precision = "auto"
    grad_checkpointing: bool = False
    compile: bool = False
    accelerator: Accelerator = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: Strategy = "auto"
    num_workers: int | None = None
    seed: int = 0
    deterministic: bool = False

    evaluate_every: int = 1
    checkpoint_minutes: float = 10.0
    checkpoint_every_steps: int = 0
    tensorboard: bool = False
    out: Path | None = None
    resume: Path | None = None

    def __post_init__(self) -> None:
        """Take paths as strings too. Raises `UserError` for a number that is out of its range."""
        for name in PATHS:
            if getattr(self, name) is not None:
                object.__setattr__(self, name, Path(getattr(self, name)))
        for names, right, expected in RANGES:
            for name in names.split():
                try:
                    sound = right(getattr(self, name))
                except TypeError:  # in a recipe 1e-3 is a word, 1.0e-3 a number
                    raise UserError(f"{name}: found {getattr(self, name)!r}, expected {expected}, written such as 0.001") from None
                if not sound:
                    raise UserError(f"{name}: found {getattr(self, name)}, expected {expected}")
        if self.scale_low > self.scale_high:
            raise UserError(f"scale_low: found {self.scale_low} above scale_high {self.scale_high}, expected the smaller factor first")
        if (self.schedule == "steps") != bool(self.step_epochs):
            raise UserError(f"step_epochs: found {self.step_epochs} for the schedule {self.schedule!r}, expected epochs for 'steps' only")
        if any(not 0 < epoch < self.total_epochs for epoch in self.step_epochs):
            raise UserError(f"step_epochs: found {self.step_epochs}, expected epochs between 0 and the {self.total_epochs} of the training")
        if self.strategy == "fsdp" and self.ema_decay > 0:
            raise UserError("ema_decay: found with strategy fsdp, where no process has the whole model; use ddp, or set ema_decay to 0")

    @property
    def total_epochs(self) -> int:
        return self.epochs + self.cooldown_epochs

    @property
    def fitting_warmup_epochs(self) -> float:
        """`warmup_epochs`, or a fifth of the epochs where it is more than half of them: a short training must come down again."""
        return self.warmup_epochs if self.warmup_epochs <= self.epochs / 2 else self.epochs / 5

    def plain(self) -> dict[str, Any]:
        """The settings as numbers, strings, lists and dictionaries, ready for YAML or JSON."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> "TrainSettings":
        """The settings written by `plain`; `UserError` names what does not belong."""
        known = [entry.name for entry in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            near = did_you_mean(unknown, known) or "; 'foveate train --help' lists them"
            raise UserError(f"unknown training settings: found {', '.join(unknown)}, expected options of train{near}")
        return cls(**values)
