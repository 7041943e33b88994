"""Matrix products by the faster library: the same numbers and gradients, and nobody who watches misses one."""

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from foveate.layers import products
from foveate.layers.products import add_product, linear_product, product, product_over_rows
from foveate.layers.recomputing import called

side = st.integers(1, 40)
ASKED = products.has_slow_products.__wrapped__


@pytest.fixture(autouse=True, params=[True, False], ids=["oneDNN", "PyTorch"], scope="module")
def library(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Both libraries, whichever this processor prefers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "has_slow_products", lambda: request.param)
        yield request.param


def seen(call: Callable[[], object]) -> list[str]:
    """The operations that PyTorch's profiler sees."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    return [event.key for event in profile.key_averages()]


def is_by_onednn(call: Callable[[], object]) -> bool:
    return any(name.startswith("mkldnn::") for name in seen(call))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 5), max_size=3),
    side,
    side,
    st.sampled_from((None, "whole", "gaps")),
    st.sampled_from(("whole", "turned", "gaps")),
)
def test_a_linear_layer(shape: list[int], d: int, e: int, biased: str | None, lies: str) -> None:
    weight = {"whole": torch.randn(e, d), "turned": torch.randn(d, e).t(), "gaps": torch.randn(e, 2 * d)[:, ::2]}[lies]
    x, bias = torch.randn(*shape, d), {None: None, "whole": torch.randn(e), "gaps": torch.randn(2 * e)[::2]}[biased]
    with torch.no_grad():
        y = linear_product(x, weight, bias)
    torch.testing.assert_close(y, F.linear(x.double(), weight.double(), None if bias is None else bias.double()).float())


@pytest.mark.parametrize("frozen", ["weight", "x"])
def test_what_no_gradient_asks_for_is_not_kept(frozen: str) -> None:
    x, weight = torch.randn(5, 4, requires_grad=frozen != "x"), torch.randn(3, 4, requires_grad=frozen != "weight")
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: (kept.append(tensor), tensor)[1], lambda tensor: tensor):
        y = linear_product(x, weight)
    assert kept
    assert not any(tensor.data_ptr() == {"weight": x, "x": weight}[frozen].data_ptr() for tensor in kept)
    outer = torch.randn(5, 3)
    learns = x if frozen == "weight" else weight
    (found,) = torch.autograd.grad(y, learns, outer)
    torch.testing.assert_close(found, outer @ weight if frozen == "weight" else outer.t() @ x)


@settings(deadline=None, max_examples=40)
@given(side, side, side)
def test_products_and_sums(t: int, d: int, e: int) -> None:
    a, b, c, total = torch.randn(t, d), torch.randn(d, e), torch.randn(t, e), torch.randn(t, e)
    close = {"atol": 2e-5, "rtol": 2e-5}
    with torch.no_grad():
        torch.testing.assert_close(product(a, b), a @ b, **close)
        torch.testing.assert_close(product_over_rows(a, c), a.t() @ c, **close)
        torch.testing.assert_close(product_over_rows(c[:, : e // 2 + 1], a), c[:, : e // 2 + 1].t() @ a, **close)
        expected = total + a @ b
        assert add_product(total, a, b.t()) is total
        torch.testing.assert_close(total, expected, **close)
        gaps = torch.randn(t, 2 * e)
        expected = gaps[:, ::2] + a @ b
        torch.testing.assert_close(add_product(gaps[:, ::2], a, b.t()), expected, **close)


def test_which_library_it_is(library: bool) -> None:
    x, weight = torch.randn(70, 30), torch.randn(20, 30)
    with torch.no_grad():
        assert is_by_onednn(lambda: linear_product(x, weight)) == library
        assert is_by_onednn(lambda: product_over_rows(x, x)) == library
        assert is_by_onednn(lambda: add_product(torch.zeros(70, 20), x, weight)) == library
        assert not is_by_onednn(lambda: linear_product(x.double(), weight.double()))
        assert not is_by_onednn(lambda: linear_product(x[:0], weight))
        with torch.backends.mkldnn.flags(enabled=False):
            assert not is_by_onednn(lambda: linear_product(x, weight))
        with torch.autocast("cpu", torch.bfloat16):
            assert linear_product(x, weight).dtype == torch.bfloat16


@pytest.mark.parametrize("wanted", [(True, True, True), (True, False, False), (False, True, False), (False, False, True)])
def test_gradients(wanted: tuple[bool, ...]) -> None:
    torch.manual_seed(0)
    given_tensors = torch.randn(3, 7, 12), torch.randn(20, 12), torch.randn(20)
    outer = torch.randn(3, 7, 20)
    found, expected = [], []
    for run, kind, to in ((linear_product, torch.float32, found), (F.linear, torch.float64, expected)):
        x, weight, bias = (tensor.to(kind, copy=True).requires_grad_(asks) for tensor, asks in zip(given_tensors, wanted, strict=True))
        run(x, weight, bias).backward(outer.to(kind))
        to.extend(tensor.grad for tensor in (x, weight, bias))
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one.double(), other, atol=2e-5, rtol=2e-5)


def test_gradients_can_be_differentiated_again() -> None:
    torch.manual_seed(0)

    def twice(run: Callable[..., Tensor], kind: torch.dtype) -> list[Tensor]:
        torch.manual_seed(1)
        x, weight, bias = (torch.randn(*shape).to(kind).requires_grad_() for shape in ((5, 6), (4, 6), (4,)))
        first = torch.autograd.grad(run(x, weight, bias).pow(3).sum(), (x, weight, bias), create_graph=True)
        return list(torch.autograd.grad(sum(gradient.square().sum() for gradient in first), (x, weight, bias)))

    for one, other in zip(twice(linear_product, torch.float32), twice(F.linear, torch.float64), strict=True):
        torch.testing.assert_close(one.double(), other, atol=1e-3, rtol=1e-4)


def test_tangents_batches_counters_and_traces_see_the_product() -> None:
    x, weight = torch.randn(6, 5), torch.randn(4, 5)
    _, tangent = torch.func.jvp(lambda x: linear_product(x, weight), (x,), (torch.ones_like(x),))
    torch.testing.assert_close(tangent, torch.ones_like(x) @ weight.t())
    torch.testing.assert_close(torch.func.vmap(lambda row: linear_product(row, weight))(x), x @ weight.t())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        linear_product(x, weight)
    assert counter.get_total_flops() == 2 * 6 * 5 * 4
    exported = torch.export.export(Called(nn.Linear(5, 4)), (x,))
    assert any("linear" in str(node.target) for node in exported.graph.nodes)


class Called(nn.Module):
    """A linear layer by `called`."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return called(self.layer, x)


def test_layers_with_hooks_and_others_in_their_place_are_called() -> None:
    layer, x, met = nn.Linear(5, 4), torch.randn(6, 5), []
    torch.testing.assert_close(called(layer, x), layer(x))
    layer.register_forward_hook(lambda *_: met.append(1))
    called(layer, x)
    assert met == [1]
    assert torch.equal(called(nn.Flatten(), x), x)


def test_what_does_not_fit_is_said_by_pytorch() -> None:
    for weight in (torch.randn(4, 6), torch.randn(4)):
        with pytest.raises(RuntimeError):
            linear_product(torch.randn(3, 5), weight)
    x, weight, one = torch.randn(3, 5), torch.randn(4, 5), torch.randn(1)
    with pytest.raises(RuntimeError):
        linear_product(x, weight, torch.randn(3))
    assert torch.equal(linear_product(x, weight, one), F.linear(x, weight, one))
    with pytest.raises(RuntimeError), torch.no_grad():
        add_product(torch.randn(3, 4), torch.randn(3, 5), torch.randn(2, 5))


PROCESSORS = {
    ("AVX512", "AuthenticAMD"): True,
    ("AVX512_BF16", "AuthenticAMD"): True,
    ("AVX2", "AuthenticAMD"): False,
    ("AVX512", "GenuineIntel"): False,
    ("DEFAULT", ""): False,
}


@pytest.mark.parametrize("processor", PROCESSORS)
def test_which_processors_have_slow_products(processor: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: processor[0])
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(products, "_processor", lambda: f"vendor_id : {processor[1]}")
    assert ASKED() == PROCESSORS[processor]
