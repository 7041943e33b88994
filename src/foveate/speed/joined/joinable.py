"""What native code can take in a module's place: its layers as they were made, plain tensors on the processor, nobody watching."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from foveate.layers.dropout import Dropout
from foveate.layers.feedforward import MultiPathFeedForward
from foveate.layers.mlp import Mlp
from foveate.layers.position import ConvPositionEmbedding
from foveate.layers.recomputing import compute_dtype, is_plain, is_untouched
from foveate.layers.watching import is_watched
from foveate.models.t2t_vit import Attention
from foveate.speed.native.library import FORMATS


def are_chains(block: Any, mixer: type[nn.Module]) -> bool:
    """Whether an FViT block's layers are of the kinds and shapes that the chains compute, with this mixer, and as they were made.

    Whether its later norm has weights is left to the caller.
    """
    kinds = (block.position, ConvPositionEmbedding), (block.mixer, mixer), (block.ffn, MultiPathFeedForward)
    paths = (block.drop_path1, DropPath), (block.drop_path2, DropPath), (block.norm2, nn.LayerNorm)
    if not all(is_untouched(module, kind) for module, kind in (*kinds, *paths)):
        return False
    ffn = block.ffn
    layers = block.norm1, ffn.fc1, *ffn.paths, ffn.fc2
    if not is_untouched(ffn.drop, Dropout) or not all(map(is_plain, layers)) or not all(map(_is_filter, (block.position, *ffn.paths))):
        return False
    return all(layer.bias is not None for layer in (block.position, *layers)) and _agree(block)


def _is_filter(convolution: nn.Conv2d) -> bool:
    """Whether a convolution is depthwise, 3x3, with zeros around the map."""
    around = convolution.kernel_size == (3, 3) and convolution.padding == (1, 1) and convolution.padding_mode == "zeros"
    return around and convolution.stride == convolution.dilation == (1, 1) and convolution.weight.shape[1:] == (1, 3, 3)


def _agree(block: Any) -> bool:
    """Whether the shapes of a block's weights fit one another: the layers would say what is wrong, native code would read on."""
    width, ffn = len(block.position.weight), block.ffn
    hidden, groups = len(ffn.fc1.weight), ffn.num_paths
    group = hidden // groups
    mixer = getattr(block.mixer, "channels", len(block.mixer.bias))  # a learnable filter may be one for all channels
    channels = mixer, len(block.norm1.weight), len(block.norm1.bias), len(block.position.bias), *block.norm2.normalized_shape
    if any(number != width for number in channels) or hidden % groups or len(ffn.paths) > groups:
        return False
    if len(getattr(block.mixer, "weight", block.position.weight)) != width:
        return False
    linears = ffn.fc1.weight.shape == (hidden, width) and ffn.fc2.weight.shape == (width, hidden)
    biases = len(ffn.fc1.bias) == hidden and len(ffn.fc2.bias) == width
    return linears and biases and all(len(path.weight) == len(path.bias) == group for path in ffn.paths)


def are_token_layers(block: Any) -> bool:
    """Whether a transformer block's layers are of the kinds and shapes that the native code computes, and as they were made.

    Whether its norms have weights, and whether it is in training, is left to the caller.
    """
    paths = (block.drop_path1, DropPath), (block.drop_path2, DropPath)
    norms = (block.norm1, nn.LayerNorm), (block.norm2, nn.LayerNorm)
    if not all(is_untouched(module, kind) for module, kind in ((block.attn, Attention), *paths, *norms)):
        return False
    proj = block.attn.proj
    plain = is_plain(block.attn.qkv) and is_plain(proj) and proj.bias is not None
    return plain and is_plain_mlp(block.mlp) and _tokens_agree(block)


def is_plain_mlp(mlp: Any) -> bool:
    """Whether an MLP is ours as it was made, its linears with biases."""
    if not is_untouched(mlp, Mlp) or not all(is_untouched(drop, Dropout) for drop in (mlp.inner_drop, mlp.drop)):
        return False
    return all(is_plain(layer) and layer.bias is not None for layer in (mlp.fc1, mlp.fc2))


def has_weights(norm: Any) -> bool:
    """Whether a layer norm has gain and shift, of the shape that it norms."""
    if norm.weight is None or norm.bias is None:
        return False
    return norm.weight.shape == norm.bias.shape == norm.normalized_shape


def is_in_one_mode(module: nn.Module) -> bool:
    """Whether a module and all within it are in training, or all in evaluation."""
    return len({part.training for part in module.modules()}) == 1


def _tokens_agree(block: Any) -> bool:
    """Whether the shapes of a transformer block's weights fit one another."""
    qkv, (proj, fc1, fc2) = block.attn.qkv, (block.attn.proj, block.mlp.fc1, block.mlp.fc2)
    width, hidden = len(proj.weight), len(fc1.weight)
    if not block.norm1.normalized_shape == block.norm2.normalized_shape == (width,):
        return False
    products = qkv.weight.shape == (3 * width, width) and proj.weight.shape == (width, width)
    products = products and fc1.weight.shape == (hidden, width) and fc2.weight.shape == (width, hidden)
    biases = len(proj.bias) == len(fc2.bias) == width and len(fc1.bias) == hidden and (qkv.bias is None or len(qkv.bias) == 3 * width)
    return products and biases and width % block.attn.num_heads == 0


def are_for_chains(parameters: Iterable[nn.Parameter]) -> bool:
    """Whether weights are on the processor, in number formats that native code knows."""
    return all(parameter.device.type == "cpu" and parameter.dtype in FORMATS for parameter in parameters)


def are_float32(tensors: Iterable[Tensor]) -> bool:
    """Whether tensors are on the processor, in float32."""
    return all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)


def readable(weight: Tensor) -> Tensor:
    """A weight as native code reads it: contiguous, its numbers as they lie in memory."""
    return weight if weight.is_contiguous() and not weight.is_neg() else weight.detach().resolve_neg().contiguous()


def records_gradients(x: Tensor, parameters: list[nn.Parameter]) -> bool:
    """Whether somebody may want gradients through a block."""
    return torch.is_grad_enabled() and (x.requires_grad or any(parameter.requires_grad for parameter in parameters))


def is_for_chains(x: Tensor, parameters: list[nn.Parameter]) -> bool:
    """Whether native code can take a block's input beside its weights: plain tensors on the processor, of its number formats, unwatched."""
    if type(x) is not Tensor or x.device.type != "cpu" or not x.numel() or x.is_neg() or not are_for_chains(parameters):
        return False
    weight = parameters[0]
    if x.dtype not in FORMATS or (not torch.is_autocast_enabled("cpu") and x.dtype != weight.dtype):
        return False
    return compute_dtype(weight) in FORMATS and not is_watched()


def way_back(gradients: Callable[[Any, Tensor], Any]) -> Callable[..., Any]:
    """The `backward` of a function of autograd whose first output alone is differentiable, once, by `gradients` of it.

    What these get is as native code reads it, and they compute in the number format of the forward pass, whatever autocast says meanwhile.
    """

    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> Any:
        with torch.autocast("cpu", enabled=False):
            return gradients(ctx, gradient.resolve_neg().contiguous())

    return backward


class Joined:
    """A module that native code has taken the place of, by `join`."""

    @classmethod
    def join(cls, module: Any) -> None:
        """Makes a module that fits one of these; names of modules and parameters stay."""
        module.__class__ = cls


class InTraining(Joined):
    """One that trains; its class before is `LAYERS`."""

    LAYERS: type[nn.Module]


class Packed(Joined):
    """One with its weights as native code reads them."""

    packed: tuple[object, Any] | None

    @classmethod
    def join(cls, module: Any) -> None:
        """Makes a module that fits one of these.

        Its weights are packed at once: small tensors that are made between the large ones of a forward pass, and stay, would break up the
        free memory in which the next large ones have to find their place (T2T-ViT-14, batch 16: a peak of 360 to 580 MiB instead of 280
        to 310).
        """
        super().join(module)
        module.packed = None
        module.kept(list(module.parameters()))

    def kept(self, parameters: list[nn.Parameter]) -> Any:
        """What `pack` makes, anew where a parameter or the setting has changed, or where nobody can know.

        Not seen: weights changed through `.data`, or given other numbers in the very memory of the old ones, as by two conversions in a
        row.
        """
        if any(parameter.is_inference() for parameter in parameters):
            return self.pack()
        state = (self.setting(), *((parameter.data_ptr(), parameter._version) for parameter in parameters))
        packed = self.packed  # read once: another thread, under another autocast, may store its own meanwhile
        if packed is None or packed[0] != state:
            self.packed = packed = (state, self.pack())
        return packed[1]

    def setting(self) -> object:
        """What packed weights depend on beside the parameters."""
        return None

    def pack(self) -> Any:
        """The weights as native code reads them."""
        raise NotImplementedError
