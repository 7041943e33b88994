"""Evaluation equals torchvision to the bit; training varies exactly as it says, and draws from nothing but the seeded generators."""

import pickle
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from timm.data.auto_augment import rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torchvision.transforms import InterpolationMode, ToTensor, v2

from foveate.card import Preprocessing
from foveate.data import transforms
from foveate.data.examples import LabelledPictures
from foveate.data.loader import preserved_random_numbers, seed_random_numbers
from foveate.data.pictures import PictureSet
from foveate.data.reading import open_picture, read_picture
from foveate.data.transforms import Augmentation, Transform, evaluation_transform, random_part, training_transform
from foveate.errors import UserError

PLAIN = Augmentation(flip=0, rand_augment=0, color_jitter=0, erasing=0, interpolation="bilinear")
UNIT = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    with preserved_random_numbers():
        seed_random_numbers(seed)
        yield


def result_of(transform: Transform, picture: Image.Image) -> torch.Tensor:
    """(C, H, W) what reaches the model, by way of a batch of one."""
    examples = LabelledPictures(PictureSet((), (0,), ("a",), "train"), transform)
    batch = examples.collate([{**transform.start(picture), "label": torch.tensor(0)}])
    finished = examples.finish(batch, torch.device("cpu"))
    assert set(finished) == {"image", "label"}
    assert finished["image"].is_contiguous(memory_format=torch.channels_last)
    return finished["image"][0]


def noise(width: int, height: int, channels: int = 3, seed: int = 0) -> Image.Image:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def ramp(width: int, height: int) -> Image.Image:
    """Red is the column, green the row, each from 0 at the first edge to 1 at the last."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([(x + 0.5) / width, (y + 0.5) / height, np.zeros((height, width))], axis=-1)
    return Image.fromarray((pixels * 255).round().astype(np.uint8))


def torchvision_evaluation(preprocessing: Preprocessing) -> v2.Compose:
    return v2.Compose(
        [
            v2.Resize(preprocessing.resize, InterpolationMode(preprocessing.interpolation), antialias=True),
            v2.CenterCrop(preprocessing.size),
            ToTensor(),
            v2.Normalize(preprocessing.mean, preprocessing.std),
        ]
    )


@pytest.mark.parametrize("preprocessing", [Preprocessing(), Preprocessing(resize=248), Preprocessing(interpolation="bilinear")])
def test_evaluation_equals_torchvision_on_photographs(real_jpegs: list[Path], preprocessing: Preprocessing) -> None:
    ours, theirs = evaluation_transform(preprocessing), torchvision_evaluation(preprocessing)
    for path in real_jpegs:
        with open_picture(path) as image:
            assert torch.equal(ours(image), theirs(Image.open(path).convert("RGB")))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(4, 40), st.integers(0, 20), st.sampled_from(["bicubic", "bilinear", "lanczos"]))
def test_evaluation_equals_torchvision_at_any_size(width: int, height: int, size: int, margin: int, interpolation: str) -> None:
    preprocessing = Preprocessing(size=(size, size), resize=size + margin, interpolation=interpolation)
    picture = noise(width, height)
    result = evaluation_transform(preprocessing)(picture)
    assert torch.equal(result, torchvision_evaluation(preprocessing)(picture))
    assert (result.shape, result.dtype) == ((3, size, size), torch.float32)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(2, 40), st.integers(2, 40), st.integers(0, 15))
def test_a_wide_or_high_input_is_filled_without_distortion(width: int, height: int, rows: int, columns: int, margin: int) -> None:
    preprocessing = Preprocessing(size=(rows, columns), resize=min(rows, columns) + margin, interpolation="bilinear", **UNIT)
    result = evaluation_transform(preprocessing)(Image.new("RGB", (width, height), "white"))
    assert result.shape == (3, rows, columns)
    assert (result == 1).all()  # nothing padded


def test_the_cut_of_a_wide_input_is_centred_and_in_proportion() -> None:
    preprocessing = Preprocessing(size=(40, 80), resize=50, **UNIT)
    red, green, _ = evaluation_transform(preprocessing)(ramp(200, 200))  # made 100 x 100
    assert red[0, 0] == pytest.approx(10.5 / 100, abs=0.01)
    assert red[0, -1] == pytest.approx(89.5 / 100, abs=0.01)
    assert green[0, 0] == pytest.approx(30.5 / 100, abs=0.01)
    assert green[-1, 0] == pytest.approx(69.5 / 100, abs=0.01)


def test_a_resize_below_the_input_leaves_a_border_of_the_mean_colour() -> None:
    preprocessing = Preprocessing(size=(32, 33), resize=16)
    result = evaluation_transform(preprocessing)(Image.new("RGB", (64, 64), "white"))
    assert result.shape == (3, 32, 33)
    filled = result.ne(0).all(dim=0)
    assert filled.any(dim=1).nonzero().flatten().tolist() == list(range(8, 24))
    assert filled.any(dim=0).nonzero().flatten().tolist() == list(range(8, 24))
    assert filled.sum() == 16 * 16


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (4, "RGBA")])
def test_pictures_are_read_with_as_many_channels_as_the_mean_has(channels: int, mode: str) -> None:
    preprocessing = Preprocessing(size=(8, 8), resize=8, mean=(0.5,) * channels, std=(0.25,) * channels)
    picture = noise(8, 8, channels=4)
    expected = torch.from_numpy(np.array(picture if mode == "RGBA" else picture.convert("RGB").convert("L"))).reshape(8, 8, channels)
    if mode == "L":
        white = Image.alpha_composite(Image.new("RGBA", (8, 8), "white"), picture)
        expected = torch.from_numpy(np.array(white.convert("L")))[..., None]
    expected = (expected.permute(2, 0, 1).float() / 255 - 0.5) / 0.25
    assert torch.equal(evaluation_transform(preprocessing)(picture), expected)
    with seeded(1):
        assert result_of(training_transform(preprocessing, PLAIN), picture).shape == (channels, 8, 8)


def test_unknown_interpolation_is_refused() -> None:
    with pytest.raises(UserError, match="found interpolation cubic, expected one of nearest, "):
        evaluation_transform(Preprocessing(interpolation="cubic"))


@given(
    st.integers(1, 500),
    st.integers(1, 500),
    st.floats(0.05, 1).flatmap(lambda least: st.tuples(st.just(least), st.floats(least, 1))),
    st.floats(0.2, 1.5).flatmap(lambda least: st.tuples(st.just(least), st.floats(least, 3))),
    st.integers(0, 1000),
)
def test_a_random_part_lies_in_the_picture(width: int, height: int, scale: tuple, ratio: tuple, seed: int) -> None:
    with seeded(seed):
        left, top, right, bottom = random_part(width, height, scale, ratio)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_random_parts_have_the_areas_and_proportions_asked_for() -> None:
    with seeded(0):
        parts = [random_part(4000, 4000, (0.08, 0.5), (3 / 4, 4 / 3)) for _ in range(4000)]
    widths, heights = (np.array([part[side + 2] - part[side] for part in parts]) for side in (0, 1))
    areas, proportions = widths * heights / 4000**2, np.log(widths / heights)
    assert areas.min() >= 0.0795
    assert areas.max() <= 0.5005
    assert areas.mean() == pytest.approx(0.29, abs=0.01)  # uniform
    assert areas.std() == pytest.approx(0.42 / 12**0.5, abs=0.005)
    assert np.abs(proportions).max() <= np.log(4 / 3) + 0.01
    assert proportions.std() == pytest.approx(2 * np.log(4 / 3) / 12**0.5, abs=0.005)


def test_where_no_part_fits_the_largest_centred_one_is_taken() -> None:
    with seeded(0):
        assert random_part(1000, 10, (0.9, 1.0), (3 / 4, 4 / 3)) == (493, 0, 506, 10)
        assert random_part(10, 1000, (0.9, 1.0), (3 / 4, 4 / 3)) == (0, 493, 10, 506)
        assert random_part(1000, 1, (0.5, 1.0), (3 / 4, 4 / 3)) == (499, 0, 500, 1)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(("width", "height", "suffix"), [(1200, 800, "jpg"), (1200, 800, "png"), (60, 40, "jpg"), (301, 203, "jpg")])
def test_training_shows_the_part_that_was_drawn(tmp_path: Path, orientation: int, width: int, height: int, suffix: str) -> None:
    """Also where the file is decoded at a half, a quarter or an eighth, and where it is stored on its side."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = ramp(width, height) if orientation == 1 else ramp(width, height).transpose(Image.Transpose.ROTATE_90)
    stored.save(tmp_path / f"ramp.{suffix}", exif=exif, **({"quality": 98, "subsampling": 0} if suffix == "jpg" else {}))
    transform = training_transform(Preprocessing(size=(32, 48), resize=32, **UNIT), PLAIN)
    for seed in range(12):
        with open_picture(tmp_path / f"ramp.{suffix}") as image, seeded(seed):
            red, green, _ = result_of(transform, image)
        with seeded(seed):
            left, top, right, bottom = random_part(width, height, PLAIN.scale, PLAIN.ratio)
        across = (left + (torch.arange(48) + 0.5) * (right - left) / 48) / width
        down = (top + (torch.arange(32) + 0.5) * (bottom - top) / 32) / height
        assert (red - across).abs().max() < 0.025
        assert (green - down[:, None]).abs().max() < 0.025


@pytest.mark.parametrize(("suffix", "divisors"), [("jpg", {1, 2, 4, 8}), ("png", {1})])
def test_a_part_is_never_enlarged_from_a_smaller_decode_than_the_file_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, divisors: set[int]
) -> None:
    """And it is decoded as small as this allows, by whole powers of two."""
    width, height = 1203, 803
    ramp(width, height).save(tmp_path / f"ramp.{suffix}")
    seen, resized, found = [], transforms.resized_pixels, set()
    monkeypatch.setattr(transforms, "resized_pixels", lambda pixels, *rest: seen.append(tuple(pixels.shape[1:])) or resized(pixels, *rest))
    for side, seed in [(side, seed) for side in (24, 100, 300) for seed in range(25)]:
        transform = training_transform(Preprocessing(size=(side, side), resize=side), PLAIN)
        with open_picture(tmp_path / f"ramp.{suffix}") as image, seeded(seed):
            transform.start(image)
        with seeded(seed):
            left, top, right, bottom = random_part(width, height, PLAIN.scale, PLAIN.ratio)
        drawn = min(right - left, bottom - top)
        divisor = max(one for one in divisors if one * side <= max(drawn, side))
        found.add(divisor)
        for pixels, whole in zip(seen[-1], (bottom - top, right - left), strict=True):
            assert pixels >= min(whole, side)
            assert whole / divisor <= pixels < whole / divisor + 3
    assert found == divisors


def stored(folder: Path, kind: str) -> Path:
    """A picture file of 90 x 70 px of an unusual kind; the JPEG files have smooth colours."""
    smooth, path = ramp(90, 70), folder / f"odd.{kind.rsplit(maxsplit=1)[-1]}"
    if kind == "16-bit png":
        Image.fromarray(np.asarray(smooth.convert("L")).astype(np.uint16) * 257).save(path)
    elif kind == "turned jpg":
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 8
        smooth.transpose(Image.Transpose.ROTATE_270).save(path, exif=exif, quality=98)
    else:
        mode = {"cmyk": "CMYK", "grey": "L", "palette": "P", "translucent": "RGBA", "bilevel": "1"}[kind.split(maxsplit=1)[0]]
        smooth.convert(mode).save(path)
    return path


@pytest.mark.parametrize("kind", ["cmyk jpg", "grey jpg", "turned jpg", "16-bit png", "palette gif", "translucent png", "bilevel tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_training_sees_what_is_read_of_unusual_pictures(tmp_path: Path, kind: str, channels: int) -> None:
    path = stored(tmp_path, kind)
    whole = read_picture(path, channels)
    assert whole.size == (90, 70)
    preprocessing = Preprocessing(size=(40, 40), resize=40, mean=(0.0,) * channels, std=(1.0,) * channels)
    transform = training_transform(preprocessing, PLAIN)
    for seed in range(6):
        with open_picture(path) as image, seeded(seed):
            result = result_of(transform, image)
        with seeded(seed):
            part = random_part(90, 70, PLAIN.scale, PLAIN.ratio)
        expected = np.asarray(whole.crop(part).resize((40, 40), Image.Resampling.BILINEAR)).reshape(40, 40, channels)
        assert np.abs(result.permute(1, 2, 0).numpy() * 255 - expected).max() <= 1.01


def test_flip_mirrors_and_nothing_else() -> None:
    preprocessing = Preprocessing(size=(24, 24), resize=24)
    flipped, kept = (
        training_transform(preprocessing, Augmentation(flip=flip, rand_augment=0, color_jitter=0, erasing=0)) for flip in (1, 0)
    )
    with seeded(3):
        one = result_of(flipped, noise(40, 30))
    with seeded(3):
        other = result_of(kept, noise(40, 30))
    assert torch.equal(one, other.flip(2))
    assert not torch.equal(one, other)


def test_pad_shifts_the_evaluation_cut_over_black() -> None:
    preprocessing = Preprocessing(size=(12, 10), resize=10)
    picture = noise(10, 12)
    transform = training_transform(preprocessing, Augmentation(crop="pad", padding=1, flip=0, rand_augment=0, color_jitter=0, erasing=0))
    whole = evaluation_transform(preprocessing)(picture)
    black = (-torch.tensor(preprocessing.mean) / torch.tensor(preprocessing.std)).reshape(3, 1, 1)
    framed = black.expand(3, 14, 12).clone()
    framed[:, 1:13, 1:11] = whole
    windows = {(top, left): framed[:, top : top + 12, left : left + 10] for top in range(3) for left in range(3)}
    seen = set()
    for seed in range(80):
        with seeded(seed):
            result = result_of(transform, picture)
        (place,) = [place for place, window in windows.items() if torch.equal(window, result)]
        seen.add(place)
    assert seen == set(windows)


def test_color_jitter_scales_brightness_within_its_range_and_only_without_rand_augment() -> None:
    preprocessing = Preprocessing(size=(4, 4), resize=4, **UNIT)
    grey = Image.new("RGB", (4, 4), (100, 100, 100))  # contrast and saturation do nothing to it
    jitter = training_transform(preprocessing, Augmentation(rand_augment=0, erasing=0))
    values = []
    for seed in range(300):
        with seeded(seed):
            result = result_of(jitter, grey)
        assert result.unique().numel() == 1
        values.append(float(result[0, 0, 0]) * 255)
    assert min(values) == pytest.approx(60, abs=2)
    assert max(values) == pytest.approx(140, abs=2)
    assert np.mean(values) == pytest.approx(100, abs=5)
    with_rand_augment = training_transform(preprocessing, Augmentation(erasing=0))
    without = training_transform(preprocessing, Augmentation(erasing=0, color_jitter=0))
    for seed in range(30):
        results = []
        for transform in (with_rand_augment, without):
            with seeded(seed):
                results.append(result_of(transform, noise(8, 8)))
        assert torch.equal(*results)


def test_rand_augment_is_that_of_the_papers() -> None:
    ours = training_transform(Preprocessing(), Augmentation()).operations
    theirs = rand_augment_transform("rand-m9-mstd0.5-inc1", {"img_mean": (124, 116, 104)})
    described = [(op.name, op.prob, op.magnitude, op.magnitude_std, op.kwargs) for op in ours]
    assert described == [(op.name, op.prob, op.magnitude, op.magnitude_std, op.kwargs) for op in theirs.ops]
    assert Augmentation().rand_layers == theirs.num_layers
    for operation, reference in zip(ours, theirs.ops, strict=True):
        for level in (0.0, 3.0, 5.5, 9.0, 9.99):
            with seeded(1):
                level_here = operation.level_fn and operation.level_fn(level, operation.hparams)
            with seeded(1):
                assert level_here == (reference.level_fn and reference.level_fn(level, reference.hparams))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("magnitude", [1, 9, 10])
def test_every_operation_of_rand_augment_works(channels: int, magnitude: int) -> None:
    preprocessing = Preprocessing(mean=(0.5,) * channels, std=(0.5,) * channels)
    picture = noise(16, 12, channels)
    transform = training_transform(preprocessing, Augmentation(rand_augment=magnitude))
    assert len(transform.operations) == 15
    with seeded(magnitude):
        for operation in transform.operations:
            operation.prob = 1.0
            results = [operation(picture) for _ in range(40)]  # magnitudes vary, up to 10
            assert {(result.size, result.mode) for result in results} == {((16, 12), picture.mode)}
            assert all(result.getextrema() not in ((0, 0), ((0, 0),) * 3) for result in results), f"{operation.name} gives black pictures"


def test_rand_augment_on_four_channels_is_refused() -> None:
    preprocessing = Preprocessing(mean=(0.5,) * 4, std=(0.5,) * 4)
    with pytest.raises(UserError, match=r"found RandAugment for 4 channels, expected 1 or 3.*: set rand_augment to 0"):
        training_transform(preprocessing, Augmentation())


def test_erasing_puts_normal_noise_on_a_quarter_of_the_pictures() -> None:
    preprocessing = Preprocessing(size=(32, 32), resize=32)
    transform = training_transform(preprocessing, Augmentation(rand_augment=0, color_jitter=0))
    plain = Image.new("RGB", (32, 32), "white")
    shares, values = [], []
    for seed in range(600):
        with seeded(seed):
            result = result_of(transform, plain)
        erased = result != result.flatten(1).mode(dim=1).values.reshape(3, 1, 1)
        shares.append(float(erased.float().mean()))
        values.append(result[erased])
    shares = np.array(shares)
    assert (shares > 0).mean() == pytest.approx(0.25, abs=0.06)
    assert shares[shares > 0].min() > 0.01
    assert shares.max() < 0.35
    assert torch.cat(values).mean().abs() < 0.03
    assert torch.cat(values).std() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("size", [(32, 32), (17, 40), (2, 3)])
def test_erasing_is_that_of_the_papers(size: tuple[int, int]) -> None:
    """The code that the papers' trainings used, on the same random numbers, gives the same pictures."""
    preprocessing = Preprocessing(size=size, resize=min(size))
    ours, without = (training_transform(preprocessing, Augmentation(rand_augment=0, color_jitter=0, erasing=share)) for share in (0.6, 0))
    theirs = RandomErasing(0.6, mode="pixel", device="cpu")
    changed = 0
    for seed in range(80):
        with seeded(seed):
            one = result_of(ours, noise(50, 40))
        with seeded(seed):
            plain = result_of(without, noise(50, 40))
            other = theirs(plain.clone())
        assert torch.equal(one, other)
        changed += not torch.equal(plain, other)
    assert 20 < changed < 70


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(rand_augment=0), Augmentation(crop="pad")])
def test_a_training_picture_follows_from_the_seed_alone(augmentation: Augmentation) -> None:
    preprocessing = Preprocessing(size=(16, 16), resize=18)
    transform = training_transform(preprocessing, augmentation)
    copy = pickle.loads(pickle.dumps(transform))
    numpy_before = np.random.get_state()[1].copy()
    results = []
    for seed in range(25):
        with seeded(seed):
            results.append(result_of(transform, noise(30, 20)))
        random.random()
        torch.rand(3)
        with seeded(seed):
            assert torch.equal(result_of(copy, noise(30, 20)), results[-1])
    assert len({result.numpy().tobytes() for result in results}) > 20
    assert np.array_equal(np.random.get_state()[1], numpy_before), "a transform drew from NumPy's generator, which is not seeded"


WRONG = {"crop": "centre", "scale": (0.5, 0.1), "ratio": (0.0, 1.0), "padding": -1, "interpolation": "nearest"}
WRONG |= {"flip": 1.5, "rand_augment": 11, "rand_layers": 0, "color_jitter": -0.1, "erasing": 25}


@pytest.mark.parametrize("name", WRONG)
def test_impossible_augmentations_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"augmentation: found {name} .*, expected .*: change it"):
        Augmentation(**{name: WRONG[name]})
