"""Writing weights: .safetensors with a model card, and .pdparams for Paddle. A file appears whole or not at all."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from foveate.card import ModelCard
from foveate.errors import UserError
from foveate.weights.names import layout_of_ours, to_theirs
from foveate.weights.paddle_files import paddle_pickle
from foveate.weights.readers import CARD_KEY
from foveate.whole_files import whole_file


def write_safetensors(path: str | Path, tensors: Mapping[str, Tensor], card: ModelCard) -> None:
    """Writes `tensors` under their names, with `card` in the header, over whatever is at `path`.

    Raises:
        UserError: where the folder cannot be written.
    """
    # A copy each, as tensors that share memory, or stand in it with gaps, cannot be stored as they are.
    copies = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    content = save(copies, metadata={CARD_KEY: card.to_json(), "format": "pt"})
    with whole_file(Path(path)) as part:
        part.write_bytes(content)


def write_paddle(path: str | Path, tensors: Mapping[str, Tensor], *, token_order: str | None = None) -> None:
    """Writes `tensors`, under our names, as a `.pdparams` that Paddle and `read_weights` read, over whatever is at `path`.

    A model that its authors published gets their names. FViT does only with `token_order="released"`, because their names say, when read
    back, that the weights were trained in that order.

    Raises:
        UserError: for a type that numpy cannot hold (bfloat16), or where the folder cannot be written.
    """
    layout = layout_of_ours(tensors)
    if layout is not None and layout.token_order in (None, token_order):
        tensors = to_theirs(tensors, layout)
    if any(tensor.dtype == torch.bfloat16 for tensor in tensors.values()):
        raise UserError(f"{path}: found bfloat16 weights, which numpy cannot hold, expected float32 or float16; convert them first")
    with whole_file(Path(path)) as part, part.open("wb") as file:
        file.writelines(paddle_pickle({name: tensor.detach().cpu() for name, tensor in tensors.items()}))
