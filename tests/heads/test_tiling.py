import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.errors import UserError
from foveate.heads.tiling import flipped, tiled


def pointwise(images):
    """A model that looks at nothing but the pixel: five classes."""
    weight = torch.linspace(-3, 3, 5 * images.shape[1]).reshape(5, -1)
    return torch.einsum("kc,bchw->bkhw", weight, images)


def pictures(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=25)
@given(height=st.integers(1, 70), width=st.integers(1, 70), tile=st.integers(1, 40), overlap=st.floats(0, 0.9))
def test_a_pointwise_model_gives_the_same_in_tiles_of_any_kind(height, width, tile, overlap):
    images = pictures(2, 3, height, width)
    sizes = set()

    def counting(part):
        sizes.add(tuple(part.shape[2:]))
        return pointwise(part)

    result = tiled(counting, tile, overlap)(images)
    assert sizes == {(min(tile, height), min(tile, width))}, "windows are whole tiles"
    expected = pointwise(images)
    if max(height, width) > tile:
        expected = expected.log_softmax(dim=1)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-4)


def test_what_fits_into_one_tile_goes_through_untouched():
    images = pictures(2, 3, 64, 48)
    assert torch.equal(tiled(pointwise, 64, 0.5)(images), pointwise(images))


def test_no_seam_shows_where_windows_disagree():
    """Every window speaks for another probability: within the overlap it passes over in small equal steps, without overlap it jumps."""
    calls = []

    def stubborn(part):
        calls.append(part)
        return torch.tensor([0.0, 2.0 * len(calls)])[None, :, None, None].expand(1, 2, *part.shape[2:])

    def largest_step(overlap):
        calls.clear()
        probability = tiled(stubborn, 64, overlap)(pictures(1, 3, 64, 96)).exp()[0, 1]
        assert len(calls) == 2
        return probability.diff(dim=1).abs().max().item(), (probability[:, -1] - probability[:, 0]).abs().max().item()

    smooth, whole = largest_step(0.5)
    jump, _ = largest_step(0.0)
    assert whole == pytest.approx(torch.sigmoid(torch.tensor(4.0)).item() - torch.sigmoid(torch.tensor(2.0)).item())
    assert smooth < 1.1 * whole / 32 and jump > 0.02


def test_neighbours_share_at_least_the_overlap_and_cover_everything():
    positions = torch.arange(50.0 * 83).reshape(1, 1, 50, 83)
    corners = []

    def remember(part):
        corners.append(divmod(int(part[0, 0, 0, 0]), 83))
        return part.repeat(1, 2, 1, 1)

    tiled(remember, 20, 0.25)(positions)
    rows, columns = (sorted(set(axis)) for axis in zip(*corners, strict=True))
    assert len(corners) == len(rows) * len(columns)
    for starts, length in ((rows, 50), (columns, 83)):
        assert starts[0] == 0 and starts[-1] == length - 20
        assert all(0 < after - before <= 15 for before, after in itertools.pairwise(starts))


def test_a_convolution_differs_only_near_the_edges_of_windows():
    """Where a pixel's weight comes from windows that hold all its neighbours, tiles give what the whole gives."""
    kernel = pictures(4, 3, 3, 3, seed=1)
    images = pictures(1, 3, 40, 70)

    def model(part):
        return F.conv2d(part, kernel, padding=1)

    whole, parts = model(images).log_softmax(dim=1), tiled(model, 40, 0.25)(images)
    same = (whole - parts).abs().amax(dim=1)[0] < 1e-5
    assert same[:, :30].all() and same[:, 40:].all() and not same.all()


def test_the_mirrored_picture_counts_half():
    images = pictures(2, 3, 9, 14)

    def leaning(part):
        """Says class 1 in the left half, whatever it sees."""
        left = (torch.arange(part.shape[3]) < part.shape[3] // 2).float().expand(part.shape[0], 1, part.shape[2], -1)
        return torch.cat((torch.zeros_like(left), 4 * left), dim=1)

    expected = (torch.sigmoid(torch.tensor(4.0)) + 0.5) / 2
    torch.testing.assert_close(flipped(leaning)(images).exp()[:, 1], expected.expand(2, 9, 14))
    torch.testing.assert_close(flipped(pointwise)(images), pointwise(images).log_softmax(dim=1), atol=1e-5, rtol=1e-4)
    result = flipped(leaning)(images)
    torch.testing.assert_close(result, flipped(leaning)(images.flip(3)).flip(3))


def test_they_nest_and_return_float32():
    images = pictures(1, 3, 33, 50)

    def half(part):
        return pointwise(part).bfloat16()

    nested = flipped(tiled(half, 20, 0.3))(images)
    assert nested.dtype == torch.float32 and nested.isfinite().all()
    torch.testing.assert_close(nested.softmax(dim=1), pointwise(images).softmax(dim=1), atol=0.03, rtol=0)


def test_certainty_does_not_become_infinite():
    result = tiled(lambda part: torch.tensor([0.0, 1e4])[None, :, None, None].expand(1, 2, *part.shape[2:]), 4, 0.5)(pictures(1, 3, 9, 9))
    assert result.isfinite().all() and (result.argmax(dim=1) == 1).all()


@pytest.mark.parametrize(("tile", "overlap"), [(0, 0.1), (512, -0.1), (512, 1.0)])
def test_impossible_tiles_are_refused(tile, overlap):
    with pytest.raises(UserError, match="tiles: found"):
        tiled(pointwise, tile, overlap)
