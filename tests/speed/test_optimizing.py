"""An optimized model is the same function; what was done is said; the model given stays as it was."""

import pytest
import torch
from torch import nn

import foveate
from foveate.heads.create import create_dense

SMALL = {"depths": (1, 1, 1, 1), "widths": (16, 24, 32, 40), "stem_width": 8}
MODELS = {
    "fvit_tiny": SMALL,
    "fvit_tiny_dp": SMALL,
    "t2t_vit_7": {"depth": 2},
    "t2t_vit_t_14": {"depth": 1},
    "t2t_vit_14_resnext": {"depth": 1},
    "t2t_vit_14_se": {"depth": 1},
    "t2t_vit_dense": {},
    "t2t_vit_16_ghost": {"depth": 1},
    "resnet10t": {},
}


def trained(model: nn.Module) -> nn.Module:
    """A model none of whose parameters or statistics stands at its start."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.train()(torch.randn(4, 3, 64, 64, generator=generator))
    return model


@pytest.mark.parametrize("name", MODELS)
def test_the_outputs_stay_and_so_does_the_model(name: str) -> None:
    model = trained(foveate.create_model(name, num_classes=7, **MODELS[name]))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fast = foveate.optimize(model, compile=False)
    assert model.training and not fast.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    model.eval()
    with torch.inference_mode():
        for size in ((64, 64), (40, 56)) if "t2t" in name or "fvit" in name else ((64, 64),):
            x = torch.randn(2, 3, *size)
            torch.testing.assert_close(fast(x), model(x), atol=2e-4, rtol=2e-4)


def test_what_was_done_is_said() -> None:
    model = foveate.create_model("fvit_tiny", **SMALL)
    fast = foveate.optimize(model, compile=False)
    assert fast.optimized == (
        "4 Gabor filters baked",
        "4 layer norms' gains and biases folded into the next linear",
        "1 batch norms folded into the convolution before",
    )
    assert foveate.optimize(foveate.create_model("resnet10t"), compile=False).optimized == ()


def test_a_backbone_inside_a_segmenter_is_optimized_too() -> None:
    model, _ = create_dense("fvit_tiny", "semantic_fpn", 3)
    model.eval()
    fast = foveate.optimize(model, compile=False)
    x = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), model(x), atol=1e-4, rtol=1e-4)
    assert any("Gabor" in step for step in fast.optimized)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("name", "options"), [("fvit_tiny", {"mixer": "pooling"}), ("t2t_vit_16_ghost", {})])
def test_compiled_outputs_stay_at_several_sizes(name: str, options: dict[str, str]) -> None:
    model = trained(foveate.create_model(name, num_classes=7, **MODELS[name], **options)).eval()
    fast = foveate.optimize(model)
    assert fast.optimized[-1] == "compiled with constant weights"
    with torch.inference_mode():
        for size in ((64, 64), (40, 56), (96, 64)):
            x = torch.randn(2, 3, *size)
            torch.testing.assert_close(fast(x), model(x), atol=5e-4, rtol=5e-4)
