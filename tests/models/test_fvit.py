import pytest
import torch

from foveate.factory import create_model
from foveate.models.fvit import FViT, PatchEmbedding


@pytest.mark.parametrize("name", ["fvit_tiny", "fvit_tiny_dp"])
def test_baked_model_is_the_same_function(name: str) -> None:
    model = create_model(name, depths=(1, 1, 2, 1)).eval()
    x = torch.randn(1, 3, 48, 64)
    with torch.no_grad():
        expected = model(x)
        assert sum(".mixer.frequency" in key for key in model.state_dict()) == 5
        torch.testing.assert_close(model.bake()(x), expected, atol=1e-6, rtol=0)
    assert not any(".mixer.frequency" in key for key in model.state_dict())


def test_token_order_is_explicit_and_changes_the_function() -> None:
    model = create_model("fvit_tiny_dp", depths=(1, 1, 1, 1)).eval()
    released = create_model("fvit_tiny_dp", depths=(1, 1, 1, 1), token_order="released").eval()
    released.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert model.token_order == "raster"
        assert (model(x) - released(x)).abs().max() > 1e-4
        model.token_order = "released"
        assert torch.equal(model(x), released(x))
    with pytest.raises(ValueError, match="token_order: found 'columns', expected one of raster, released"):
        model.token_order = "columns"


def test_maps_stay_channels_last() -> None:
    model = create_model("fvit_tiny", depths=(1, 1, 1, 1)).eval()
    for feature in model.forward_intermediates(torch.randn(2, 3, 64, 64), intermediates_only=True):
        assert feature.is_contiguous(memory_format=torch.channels_last)


def test_positions_may_begin_as_the_identity_which_keeps_the_map_in_range() -> None:
    torch.manual_seed(0)
    picture, spreads = torch.randn(4, 3, 64, 64), {}
    for start in ("kaiming", "zero"):
        torch.manual_seed(0)
        model = create_model("fvit_tiny", position_start=start).train()
        positions = [block.position for stage in model.stages for block in stage.blocks]
        x = torch.randn(2, 5, 7, positions[0].in_channels)
        assert torch.equal(positions[0](x), x) == (start == "zero")
        with torch.no_grad():
            spreads[start] = model.forward_intermediates(picture, intermediates_only=True)[2].std()
        model(picture).sum().backward()
        assert all(position.weight.grad.abs().sum() > 0 for position in positions)
    assert spreads["kaiming"] > 30 * spreads["zero"]


@pytest.mark.parametrize("argument", ["position_start", "gabor_start", "gabor_activation", "mixer"])
def test_unknown_words_are_named(argument: str) -> None:
    with pytest.raises(ValueError, match=f"{argument}: found 'magic', expected one of "):
        FViT(depths=(1, 1, 1, 1), **{"mixer": "pooling", argument: "magic"})


def test_our_family_is_what_it_says() -> None:
    torch.manual_seed(0)
    ours = create_model("fvit_tiny_plus", depths=(1, 1, 1, 1))
    for stage in ours.stages:
        (block,) = stage.blocks
        x = torch.randn(1, 3, 4, block.position.in_channels)
        assert torch.equal(block.position(x), x)
        assert len(block.ffn.paths) == 2
        assert block.mixer.frequency.numel() == block.position.in_channels
    torch.manual_seed(0)
    spelled_out = create_model("fvit_tiny", depths=(1, 1, 1, 1), paths=2, position_start="zero")
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in spelled_out.state_dict().items())


@pytest.mark.parametrize("size", [(8, 12), (7, 5)])
def test_patches_are_embedded_alike_by_both_forms_and_a_hook_is_called(size: tuple[int, int]) -> None:
    """With gradients a linear layer on patches, without a convolution; whoever hooks the convolution has it called in both."""
    embedding, x, called = PatchEmbedding(6, 10, 2), torch.randn(2, 6, *size), []
    with torch.no_grad():
        by_convolution = embedding(x)
    torch.testing.assert_close(embedding(x), by_convolution)
    embedding.proj.register_forward_hook(lambda *_: called.append(1))
    torch.testing.assert_close(embedding(x), by_convolution)
    assert called == [1]
