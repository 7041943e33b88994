"""One table of names per foreign layout, read both ways: the authors' parameter names and ours.

A row is a pair of prefixes, (theirs, ours); `{i}` stands for a number, whatever follows a prefix is kept, and the first row that fits
counts. Names that no row fits are the same in both. What has None for ours is read and put aside.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from foveate.weights.pickles import UnreadableError

Rows = tuple[tuple[str, str | None], ...]

_T2T_BACKBONE: Rows = (
    ("blocks.{i}.attn.se_layer.fc.0", "blocks.{i}.attn.se.fc1"),
    ("blocks.{i}.attn.se_layer.fc.2", "blocks.{i}.attn.se.fc2"),
    ("tokens_to_token.project", "token_stage.project"),
)
_PERFORMER: Rows = (
    ("tokens_to_token.attention{i}.w", "token_stage.layer{i}.random_features"),
    ("tokens_to_token.attention{i}.mlp.0", "token_stage.layer{i}.mlp.fc1"),
    ("tokens_to_token.attention{i}.mlp.2", "token_stage.layer{i}.mlp.fc2"),
    ("tokens_to_token.attention{i}", "token_stage.layer{i}"),
)
_TRANSFORMER: Rows = (
    ("tokens_to_token.attention{i}.attn.qkv", "token_stage.layer{i}.qkv"),
    ("tokens_to_token.attention{i}.attn.proj", "token_stage.layer{i}.proj"),
    ("tokens_to_token.attention{i}", "token_stage.layer{i}"),
)
_CONVOLUTION: Rows = (
    ("tokens_to_token.soft_split0", "token_stage.conv1"),
    ("tokens_to_token.soft_split1", "token_stage.conv2"),
)
_GABOR: Rows = (
    ("Lambdas", "frequency"),
    ("thetas", "orientation"),
    ("psis", "phase"),
    ("gammas_y", "aspect_ratio"),
    ("sigmas", "sharpness"),
    ("trans_x", "shift_x"),
    ("trans_y", "shift_y"),
    ("alphas", "amplitude"),
    ("bias", "bias"),
    ("x", None),  # the grid of the kernel, which we compute
    ("y", None),
)
_FVIT_BLOCK: Rows = (
    ("proj", "position"),
    *((f"attn.GaborLayer.{theirs}", ours and f"mixer.{ours}") for theirs, ours in _GABOR),
    ("mlp.dwconv_1", "ffn.paths.0"),
    ("mlp.dwconv_2", "ffn.paths.1"),
    ("mlp", "ffn"),
    ("norm1", "norm1"),
    ("norm2", "norm2"),
)
_FVIT: Rows = (
    ("stem_conv{i}", "stem.conv{i}"),
    ("stem_norm{i}", "stem.norm{i}"),
    *((f"patch_embed_{letter}", f"stages.{stage}.embed") for stage, letter in enumerate("abcd")),
    *(
        (f"blocks_stage{stage + 1}.{{i}}.{theirs}", ours and f"stages.{stage}.blocks.{{i}}.{ours}")
        for stage in range(4)
        for theirs, ours in _FVIT_BLOCK
    ),
    ("head_norm", "norm"),
)


@dataclass(frozen=True)
class Layout:
    """A foreign way to name a model's parameters.

    Attributes:
        title: for messages.
        mark: how a name of theirs begins by which the layout is known, and a name of ours.
        rows: the table.
        token_order: the order in which the authors' network hands its tokens on; see the models.
    """

    title: str
    mark: tuple[str, str]
    rows: Rows
    token_order: str | None = None

    @cached_property
    def _to_ours(self) -> list[tuple[re.Pattern[str], str | None]]:
        return [(_pattern(theirs), ours) for theirs, ours in self.rows]

    @cached_property
    def _to_theirs(self) -> list[tuple[re.Pattern[str], str | None]]:
        return [(_pattern(ours), theirs) for theirs, ours in self.rows if ours is not None]

    def ours(self, name: str) -> str | None:
        """Our name for theirs; None for a tensor that our models do without."""
        return _rename(name, self._to_ours)

    def theirs(self, name: str) -> str:
        """Their name for ours."""
        return _rename(name, self._to_theirs) or name


LAYOUTS = (
    Layout(
        "T2T-ViT of its authors, performer token stage",
        ("tokens_to_token.attention1.kqv.", "token_stage.layer1.kqv."),
        _PERFORMER + _T2T_BACKBONE,
    ),
    Layout(
        "T2T-ViT of its authors, transformer token stage",
        ("tokens_to_token.attention1.attn.", "token_stage.layer1.qkv."),
        _TRANSFORMER + _T2T_BACKBONE,
    ),
    Layout(
        "T2T-ViT of its authors, convolutional token stage",
        ("tokens_to_token.soft_split0.", "token_stage.conv1."),
        _CONVOLUTION + _T2T_BACKBONE,
    ),
    Layout("FViT of its authors", ("blocks_stage1.0.attn.GaborLayer.", "stages.0.blocks.0.mixer.frequency"), _FVIT, "released"),
)
FVIT_SIZES = {64: "tiny", 72: "small", 80: "base", 88: "large"}  # by the width of the first stage


def layout_of_theirs(names: Iterable[str]) -> Layout | None:
    """The layout that `names` are in; None where they are ours, or of a model that is not ours."""
    names = list(names)
    return next((layout for layout in LAYOUTS if any(name.startswith(layout.mark[0]) for name in names)), None)


def layout_of_ours(names: Iterable[str]) -> Layout | None:
    """The layout that has names for a model whose names of ours these are; None where there is none."""
    names = list(names)
    return next((layout for layout in LAYOUTS if any(name.startswith(layout.mark[1]) for name in names)), None)


def to_ours(tensors: Mapping[str, Tensor], layout: Layout) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors under our names and in our shapes, and their names for those that our models do without.

    Raises:
        UnreadableError: where two of their names are one of ours.
    """
    renamed: dict[str, Tensor] = {}
    aside = []
    for name, tensor in tensors.items():
        ours = layout.ours(name)
        if ours is None:
            aside.append(name)
        elif ours in renamed:
            raise UnreadableError(f"found two tensors for {ours!r}, one of them called {name!r}")
        else:
            renamed[ours] = tensor.flatten() if _is_gabor(ours) else tensor
    return renamed, tuple(aside)


def to_theirs(tensors: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """The tensors under their names and in their shapes: the way back of `to_ours`, but for what that put aside."""
    return {
        layout.theirs(name): tensor.reshape(1, 1, 1) if _is_gabor(name) and not name.endswith(".bias") else tensor
        for name, tensor in tensors.items()
    }


def released_fvit(tensors: Mapping[str, Tensor]) -> str:
    """The name of our model that the authors' FViT weights belong to, by their first width."""
    norm = tensors.get("stages.0.embed.norm.weight")
    size = FVIT_SIZES.get(norm.numel() if norm is not None else 0)
    return f"fvit_{size}_dp" if size else "fvit_*_dp"


def _is_gabor(ours: str) -> bool:
    return ".mixer." in ours


def _pattern(prefix: str) -> re.Pattern[str]:
    return re.compile(re.escape(prefix).replace(r"\{i\}", r"(?P<i>\d+)") + r"(?P<rest>(\..+)?)")


def _rename(name: str, table: list[tuple[re.Pattern[str], str | None]]) -> str | None:
    for pattern, target in table:
        if match := pattern.fullmatch(name):
            return target and target.replace("{i}", match.groupdict().get("i") or "") + match["rest"]
    return name
