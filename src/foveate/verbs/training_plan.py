"""What a training is about to do and what to judge of its pictures, told before it starts, so that the user can stop it in time."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from lightning.fabric import Fabric
from rich.console import Console
from rich.table import Table
from rich.text import Text

from foveate.card import Preprocessing, WholePicture
from foveate.counting import count_parameters
from foveate.data.order import TrainingStream
from foveate.data.pictures import StoredPictures
from foveate.tasks.preparation import Prepared
from foveate.tasks.schedule import peak_learning_rate
from foveate.tasks.settings import TrainSettings
from foveate.verbs.doctor import listed

MOST_WARNINGS = 5


def resolved(fabric: Fabric, settings: TrainSettings, prepared: Prepared, stream: TrainingStream) -> dict[str, Any]:
    """What the settings come to with these pictures on this machine."""
    cuda = fabric.device.type == "cuda"
    device = torch.cuda.get_device_name(fabric.device) if cuda else f"{fabric.device.type}, {torch.get_num_threads()} threads"
    rate = peak_learning_rate(settings, stream.global_batch)
    limit = f", or as many as {settings.max_minutes:g} min allow" if settings.max_minutes else ""
    named = " on ".join(filter(None, (prepared.card.head, settings.model)))
    return {
        "model": f"{named}, {count_parameters(prepared.model):,} parameters",
        "input": _input(settings, prepared.card.task, prepared.card.preprocessing),
        "learning rate": f"{rate:.4g} = {settings.lr:g} per {settings.lr_reference_batch or stream.global_batch} pictures",
        "batch": f"{stream.global_batch} = {settings.batch_size} x {settings.accumulate} accumulated x {fabric.world_size} processes",
        "steps": f"{stream.total_steps} in {settings.total_epochs} epochs of {stream.steps_per_epoch}{limit}",
        "left out per epoch": f"{stream.left_out} pictures, others each time, as they do not fill a batch",
        "device": f"{device}, {settings.precision}",
    }


def _input(settings: TrainSettings, task: str, recipe: Preprocessing | WholePicture) -> str:
    """What the model is fed with, in words."""
    if isinstance(recipe, Preprocessing):
        return f"{recipe.size[0]} x {recipe.size[1]} px, {recipe.channels} channels; to evaluate: {recipe.resize} px, centre cut"
    cut = f", cut to {settings.crop_size or recipe.short} px" if task == "segment" else ""
    varied = f", times {settings.scale_low:g} to {settings.scale_high:g}" if settings.scale_low < settings.scale_high else ""
    return f"whole pictures, short side {recipe.short} px, long at most {recipe.long} px{varied}{cut}, {recipe.channels} channels"


def warmup_note(settings: TrainSettings) -> list[str]:
    used, wanted = settings.fitting_warmup_epochs, settings.warmup_epochs
    return [] if used == wanted else [f"warm-up of {used:g} epochs instead of {wanted:g}, which is more than half of the training"]


def plan(notes: Iterable[str], settings: TrainSettings, sets: tuple[StoredPictures, StoredPictures], values: dict[str, Any]) -> Table:
    """What is going to happen, for the user to stop it in time."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    pictures = ", ".join(f"{len(each):,} {each.split}" for each in sets)
    rows = {"data": f"{settings.data}: {pictures}, {len(sets[0].class_names)} classes", **values}
    for name, value in rows.items():
        table.add_row(name, Text(value))
    for note in notes:
        table.add_row("note", Text(note))
    return table


def tell_warnings(console: Console, warnings: Sequence[str], source: str) -> None:
    """The warnings of the data check: their number and the first of them, each on a line of its own."""
    lines = listed("warning", warnings, MOST_WARNINGS, f"foveate doctor {source} lists all")
    if lines:
        console.print("\n".join(lines), style="yellow", highlight=False, markup=False, soft_wrap=True)
