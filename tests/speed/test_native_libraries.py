"""All of the C++ can be compiled where anything can, and products are native where they are the faster ones."""

import pytest
import torch

from foveate.speed.native import library
from foveate.speed.native.library import FOLDER, find_compiler, has_library, has_products, pytorchs_openmp

IN_BFLOAT16 = {"chains", "embedding", "feed_forward", "stem", "stem_training", "token_training", "tokens", "training"}


@pytest.mark.skipif(find_compiler() is None or pytorchs_openmp() is None, reason="no C++ compiler, or PyTorch without GNU OpenMP")
@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.cpp")))
def test_every_library_compiles(name: str) -> None:
    """Models go on without one that does not, which no other test would tell from a machine without a compiler."""
    assert has_library(name, torch.float32)
    assert name not in IN_BFLOAT16 or has_library(name, torch.bfloat16)


AVX2, ONEDNN, PAIRS, TILES = "_is_avx2_supported", "_has_library_for_bfloat16", "_is_avx512_bf16_supported", "_is_amx_tile_supported"


@pytest.mark.parametrize(
    ("processor", "native"),
    [((), False), ((AVX2,), True), ((AVX2, ONEDNN), False), ((AVX2, ONEDNN, PAIRS), True), ((AVX2, ONEDNN, PAIRS, TILES), False)],
)
def test_products_in_bfloat16_are_native_where_pytorchs_are_slower(
    processor: tuple[str, ...], native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (AVX2, ONEDNN, PAIRS, TILES):
        monkeypatch.setattr(library if name == ONEDNN else torch.cpu, name, lambda name=name: name in processor)
    assert has_products.__wrapped__(torch.bfloat16) == native
    assert has_products.__wrapped__(torch.float32)
    assert not has_products.__wrapped__(torch.float64)
