"""How large a model is and how much it computes: parameters, and multiply-accumulates for one picture."""

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module, *, trainable_only: bool = False) -> int:
    """Count the numbers in the model's parameters: frozen tables (positions, random features) included, buffers (running means) not.

    Args:
        model: any module, on any device.
        trainable_only: leave the frozen ones out.
    """
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad or not trainable_only)


def count_macs(model: nn.Module, size: tuple[int, int] = (224, 224), in_chans: int = 3) -> int:
    """Count the multiply-accumulates of one forward pass in evaluation, for one picture of `size` = (H, W) pixels.

    Counted are convolutions, linear layers, matrix products and attention (both of its products): half of what PyTorch's FlopCounterMode
    reports; and what a module says in `generation_macs` of the kernels that it makes anew in every pass, as Gabor filters do. Not counted
    is what is linear in the map's size: norms, activations, softmax, pooling, additions.

    Nothing is computed or allocated: the pass runs on tensors that have a shape and no content. The model may therefore stand on the meta
    device (`with torch.device("meta"): model = create_model(name)`), where building it costs nothing either.

    Args:
        model: any classifier or backbone, on any device; it is left as it was.
        size: H and W in pixels.
        in_chans: channels of the picture.
    """
    training = model.training
    counter = FlopCounterMode(display=False)
    with FakeTensorMode(), torch.enable_grad():  # without gradients, products are added in place, which the counter does not know
        tensors = {
            name: torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            for named in (model.named_parameters(), model.named_buffers())
            for name, tensor in named
        }
        picture = torch.empty(1, in_chans, *size, device="cpu")
        with counter:
            functional_call(model.eval(), tensors, (picture,))
    model.train(training)
    return counter.get_total_flops() // 2 + sum(getattr(module, "generation_macs", 0) for module in model.modules())
