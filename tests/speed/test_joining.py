"""Joined blocks give what their layers give, at any size, and step aside where they are not meant."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import foveate
from foveate.layers.feedforward import MultiPathFeedForward
from foveate.layers.gabor import BakedGaborFilter
from foveate.models.fvit import BionicFocalVisionBlock
from foveate.speed.folding import fold_norm
from foveate.speed.joining import JoinedBlock
from foveate.speed.native_chains import can_join, find_compiler

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler on this machine")


def make_block(
    width: int = 24, *, side: int = 3, activation: str = "relu", paths: int = 2, untouched: int = 0, hidden: int = 60
) -> nn.Module:
    """A block in evaluation with random weights everywhere, its second norm folded into the feed-forward."""
    filters = BakedGaborFilter(width, side, activation)
    block = BionicFocalVisionBlock(width, filters, MultiPathFeedForward(width, hidden, paths=paths, untouched=untouched, drop=0.1), 0.1)
    generator = torch.Generator().manual_seed(width + side + paths)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    fold_norm(block.norm2, block.ffn.fc1)
    return block.eval().requires_grad_(False)


def joined(block: nn.Module) -> nn.Module:
    block = copy.deepcopy(block)
    assert JoinedBlock.fits(block)
    JoinedBlock.join(block)
    return block


def random_map(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


FORMS = [
    {},
    {"width": 64, "hidden": 192, "paths": 4},
    {"width": 16, "hidden": 48, "paths": 3, "untouched": 1},
    {"width": 40, "hidden": 252, "paths": 4, "untouched": 3},
    {"width": 72, "hidden": 252, "paths": 1},
    {"side": 5, "activation": "gelu"},
    {"side": 7, "activation": "none"},
    {"width": 33, "hidden": 66, "side": 1},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("order", ["raster", "released"])
def test_a_joined_block_is_the_block(form: dict[str, object], order: str) -> None:
    assert can_join()
    block = make_block(**form)
    block.token_order = order
    fast, width = joined(block), block.position.out_channels
    for number, (pictures, height, length) in enumerate([(1, 1, 1), (2, 3, 5), (3, 14, 14), (1, 33, 20), (5, 7, 2)]):
        x = random_map(pictures, height, length, width, seed=number)
        before = x.clone()
        with torch.inference_mode():
            found, expected = fast(x), block(x.clone())
        assert torch.equal(x, before)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)


def test_threads_and_pictures_beside_change_nothing() -> None:
    fast, x = joined(make_block(64, hidden=192, paths=4)), random_map(5, 23, 17, 64)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = fast(x)
        torch.set_num_threads(3)
        assert torch.equal(fast(x), alone)
    finally:
        torch.set_num_threads(threads)
    for index in range(len(x)):
        torch.testing.assert_close(fast(x[index : index + 1]), alone[index : index + 1], atol=1e-5, rtol=1e-5)


def test_maps_in_another_order_in_memory_are_taken_too() -> None:
    fast, x = joined(make_block()), random_map(2, 24, 9, 6)
    torch.testing.assert_close(fast(x.permute(0, 2, 3, 1)), fast(x.permute(0, 2, 3, 1).contiguous()), atol=0, rtol=0)


def test_gelu_is_within_a_millionth_everywhere() -> None:
    """A feed-forward whose linears and filter are identities leaves GELU alone."""
    block = make_block(16, hidden=16, paths=1)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
        block.ffn.paths[0].weight[:, :, 1, 1] = 1
        block.ffn.fc2.weight.copy_(torch.eye(16))
    values = torch.linspace(-15, 15, 20_000)
    for start in range(0, len(values), 16):
        block.ffn.fc1.bias.copy_(values[start : start + 16])
        found = joined(block)(torch.zeros(1, 1, 1, 16)).flatten()
        torch.testing.assert_close(found.double(), nn.functional.gelu(values[start : start + 16].double()), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_stays_none(value: float) -> None:
    block, x = make_block(), random_map(1, 6, 6, 24)
    x[0, 2, 3, 4] = value
    assert torch.equal(joined(block)(x).isfinite(), block(x.clone()).isfinite())


def test_bfloat16_is_no_worse_than_by_the_layers() -> None:
    block = make_block(64, hidden=192, paths=4)
    fast, x = joined(block), random_map(2, 14, 14, 64)
    exact = block(x.clone())
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        by_layers, found = block(x.clone()), fast(x)
    assert found.dtype == by_layers.dtype == torch.bfloat16
    assert (found - exact).abs().mean() <= (by_layers - exact).abs().mean()
    assert (found - exact).abs().max() < 0.02 * exact.abs().max()
    whole = copy.deepcopy(fast).bfloat16()(x.bfloat16())
    assert (whole - exact).abs().max() < 0.02 * exact.abs().max()


@pytest.mark.parametrize("kind", ["hook inside", "gradient to the input", "float64", "training", "no pictures"])
def test_the_layers_are_called_where_the_chains_are_not_meant(kind: str) -> None:
    block = make_block()
    fast, x = joined(block), random_map(2, 5, 5, 24)
    called = []
    if kind == "hook inside":
        fast.mixer.register_forward_hook(lambda *_: called.append(1))
        torch.testing.assert_close(fast(x.clone()), block(x.clone()))
        assert called
    elif kind == "gradient to the input":
        x.requires_grad_()
        fast(x).square().sum().backward()
        gradient, x.grad = x.grad, None
        block(x).square().sum().backward()
        torch.testing.assert_close(gradient, x.grad)
        assert gradient.abs().sum() > 0
    elif kind == "float64":
        torch.testing.assert_close(fast.double()(x.double()), copy.deepcopy(block).double()(x.double()))
    elif kind == "training":
        assert not torch.equal(fast.train()(x.clone()), block(x.clone()))
    else:
        assert fast(x[:0]).shape == (0, 5, 5, 24)


@pytest.mark.parametrize("name", ["fvit_tiny", "fvit_tiny_dp", "fvit_tiny_plus"])
def test_whole_models_and_what_is_said_of_them(name: str) -> None:
    model = foveate.create_model(name, depths=(1, 1, 2, 1), num_classes=5).eval()
    model.token_order = "released" if name == "fvit_tiny_dp" else "raster"
    fast = foveate.optimize(model)
    assert fast.optimized[-1] == "5 blocks joined: two native chains around two matrix products"
    assert fast.state_dict().keys() == foveate.optimize(model, compile=False).state_dict().keys()
    with torch.inference_mode():
        for x in (torch.randn(2, 3, 64, 96), torch.randn(1, 3, 50, 37)):
            expected = model(x)
            torch.testing.assert_close(fast(x), expected, atol=1e-4 * expected.abs().max().item(), rtol=1e-4)
            torch.testing.assert_close(copy.deepcopy(fast)(x), fast(x), atol=0, rtol=0)


@pytest.mark.parametrize("options", [{"mixer": "pooling"}, {"paths": 0}], ids=str)
def test_other_blocks_are_left_alone(options: dict[str, object]) -> None:
    model = foveate.create_model("fvit_tiny", depths=(1, 1, 1, 1), widths=(16, 24, 32, 40), **options).eval()
    assert not any(JoinedBlock.fits(module) for module in foveate.optimize(model, compile=False).modules())


PROCESS = """
import torch, foveate
from foveate.speed import optimizing
optimizing._compile = lambda model: ""
model = foveate.create_model("fvit_tiny_dp", depths=(1, 1, 1, 1), widths=(16, 24, 32, 40), stem_width=8).eval()
fast, x = foveate.optimize(model), torch.randn(1, 3, 32, 32)
print(any("joined" in step for step in fast.optimized), torch.allclose(fast(x), model(x), atol=1e-5))
"""


def run_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environment})


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks the Linux kernel which libraries are loaded")
def test_the_chains_share_pytorchs_threads() -> None:
    loaded = 'print({line.split()[-1] for line in open("/proc/self/maps") if "libgomp" in line})'
    joined_there, same, *libraries = run_process(PROCESS + loaded).stdout.split(maxsplit=2)
    assert (joined_there, same) == ("True", "True")
    assert libraries[0].count("libgomp") == 1


def test_a_compiler_that_fails_is_told_and_the_model_works(tmp_path: Path) -> None:
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\necho no such instruction >&2\nexit 1\n")
    compiler.chmod(0o755)
    done = run_process(PROCESS, CXX=str(compiler))
    assert done.stdout.split() == ["False", "True"]
    assert "could not compile FViT's joined chains, models stay without them: no such instruction" in done.stderr
