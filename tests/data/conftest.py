"""Folders of small pictures, and real JPEG files where the shared data sets are at hand."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from PIL import Image

CLOTHING = Path(__file__).resolve().parents[2] / "../shared/data/clothing10.zip"

MakeTree = Callable[..., Path]


def picture_of(name: str, width: int = 12, height: int = 10) -> Image.Image:
    """A picture that is different for every name."""
    pixels = np.random.default_rng(crc32(name.encode())).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def annotated(tmp_path: Path) -> MakeTree:
    """`annotated((W, H), {path: text}, "a.jpg", ...)`: files of these texts and pictures of one size, each of a colour of its own."""

    def make(size: tuple[int, int], texts: dict[str, str | bytes], *pictures: str) -> Path:
        root = tmp_path / "data"
        for name, text in texts.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(text.encode() if isinstance(text, str) else text)
        for place, name in enumerate(pictures):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size, (place, 9, 7)).save(root / name)
        return root

    return make


@pytest.fixture
def make_tree(tmp_path: Path) -> MakeTree:
    """`make("train/cat/a.png", "val/dog/", notes="text")`: pictures by suffix, folders by a final slash; texts by `{path: text}`."""

    def make(*names: str, texts: dict[str, str] | None = None) -> Path:
        root = tmp_path / "pictures"
        for name in names:
            path = root / name
            if name.endswith("/"):
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            picture_of(name).save(path)
        for name, text in (texts or {}).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        return root

    return make


@pytest.fixture(scope="session")
def real_jpegs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """24 photographs of the clothing set."""
    if not CLOTHING.exists():
        pytest.skip(f"{CLOTHING.name} is not beside the repository")
    folder = tmp_path_factory.mktemp("clothing")
    with zipfile.ZipFile(CLOTHING) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[::100][:24]
        return [Path(archive.extract(name, folder)) for name in names]
