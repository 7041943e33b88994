import math

import pytest
import torch

from foveate.layers.padding import pad_end
from foveate.layers.position import ConvPositionEmbedding, resize_position_table, sinusoid_table


def test_sinusoid_table_entry_by_entry() -> None:
    table = sinusoid_table(30, 10)
    for position in (0, 1, 7, 29):
        for j in range(10):
            angle = position / 10000 ** (2 * (j // 2) / 10)
            assert table[0, position, j].item() == pytest.approx(math.sin(angle) if j % 2 == 0 else math.cos(angle), abs=1e-6)


def test_resizing_keeps_class_row_and_ramps_of_each_axis() -> None:
    rows, columns = torch.meshgrid(torch.arange(14.0), torch.arange(14.0), indexing="ij")
    grid = torch.stack((rows, columns), -1).reshape(1, 196, 2)
    table = torch.cat((torch.full((1, 1, 2), 99.0), grid), 1)
    resized = resize_position_table(table, (14, 14), (28, 7))
    assert resized.shape == (1, 1 + 28 * 7, 2)
    assert torch.equal(resized[:, 0], table[:, 0])
    middle = resized[0, 1:].reshape(28, 7, 2)[8:20, 2:5]
    torch.testing.assert_close(middle[..., 0], ((torch.arange(8.0, 20) + 0.5) / 2 - 0.5)[:, None].expand(12, 3), atol=0.06, rtol=0)
    torch.testing.assert_close(middle[..., 1], ((torch.arange(2.0, 5) + 0.5) * 2 - 0.5)[None].expand(12, 3), atol=0.06, rtol=0)


def test_same_grid_is_untouched_and_a_wrong_one_refused() -> None:
    table = sinusoid_table(1 + 12, 8)
    assert resize_position_table(table, (3, 4), (3, 4)) is table
    with pytest.raises(ValueError, match="13 rows, expected 1 \\+ 4 x 4"):
        resize_position_table(table, (4, 4), (8, 8))


def test_conv_position_embedding_is_the_picture_plus_its_convolution() -> None:
    layer = ConvPositionEmbedding(5)
    x = torch.randn(2, 4, 6, 5)
    conv = torch.nn.functional.conv2d(x.permute(0, 3, 1, 2), layer.weight, layer.bias, padding=1, groups=5)
    torch.testing.assert_close(layer(x), x + conv.permute(0, 2, 3, 1))


@pytest.mark.parametrize(("size", "padded"), [((4, 4), (4, 4)), ((5, 8), (8, 8)), ((1, 3), (4, 4))])
def test_padding_stands_at_the_end(size: tuple[int, int], padded: tuple[int, int]) -> None:
    x = torch.ones(1, 2, *size)
    y = pad_end(x, 4)
    assert y.shape[2:] == padded
    assert torch.equal(y[..., : size[0], : size[1]], x)
    assert y.sum() == x.sum()
