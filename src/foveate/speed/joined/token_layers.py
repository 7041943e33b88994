"""T2T-ViT's token layers for inference on processors, in native code, see `native/token_layer.py`."""

from typing import Any

import torch
from torch import Tensor, nn

from foveate.layers.dropout import Dropout
from foveate.layers.recomputing import is_plain, is_untouched
from foveate.layers.soft_split import soft_split_padding
from foveate.layers.token_layers import TokenPerformer
from foveate.layers.watching import is_recorded
from foveate.speed.joined.joinable import Packed, are_float32, is_for_chains, is_plain_mlp, records_gradients
from foveate.speed.joined.parts import parts_of
from foveate.speed.native import token_layer as native_token_layer
from foveate.speed.native.library import LANES
from foveate.speed.native.token_layer import Split, Weights, token_layer


class JoinedTokenPerformer(Packed, TokenPerformer):
    """The layer's equation, (B, C, H, W) -> (B, T, E), in two passes over blocks of tokens.

    A layer becomes one by `join`; names of modules and parameters stay, weights that change are taken up. What the native code is not made
    for goes through the layer as it was, as in `JoinedBlock`.
    """

    KIND = "token layers joined: native soft split, performer attention and MLP"
    can_join = staticmethod(lambda dtype: dtype == torch.float32 and native_token_layer.can_join())

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Whether `module` is a token layer in evaluation, on the processor, in float32, as `optimize` leaves it."""
        return type(module) is TokenPerformer and _is_joinable(module) and are_float32(module.parameters())

    def forward(self, x_bchw: Tensor) -> Tensor:
        if is_recorded() or not (parts := parts_of(self)).says(_is_joinable) or not self._takes(x_bchw, parts.parameters):
            return super().forward(x_bchw)
        weights: Weights = self.kept(parts.parameters)
        norms: list[Any] = [self.norm1, self.norm2]
        x_bhwc = x_bchw.float().permute(0, 2, 3, 1).contiguous()
        return token_layer(x_bhwc, Split(self.kernel, self.stride), weights, (norms[0].eps, norms[1].eps))

    def _takes(self, x: Tensor, parameters: list[nn.Parameter]) -> bool:
        if x.dim() != 4 or x.shape[1] * self.kernel**2 != self.kqv.weight.shape[1] or records_gradients(x, parameters):
            return False
        padding = soft_split_padding(self.kernel, self.stride)
        if padding < 0 or min(x.shape[2:]) + 2 * padding < self.kernel:
            return False
        return is_for_chains(x, parameters) and are_float32(parameters) and self.can_join(torch.float32)

    @torch.no_grad()
    def pack(self) -> Weights:
        norm, kqv, fc1, fc2 = self.norm1, self.kqv, self.mlp.fc1, self.mlp.fc2
        folded = kqv.weight * norm.weight, kqv.bias + kqv.weight @ norm.bias
        weights = *folded, self.random_features, self.proj.weight, self.proj.bias, fc1.weight, fc1.bias, fc2.weight, fc2.bias
        return Weights(*(weight.clone(memory_format=torch.contiguous_format) for weight in weights))


def _is_joinable(layer: Any) -> bool:
    """Whether a layer's parts are in evaluation, of the kinds that the native code computes, and as they were made."""
    return are_performer_layers(layer) and layer.norm2.weight is None and not any(module.training for module in layer.modules())


def are_performer_layers(layer: Any) -> bool:
    """Whether a token layer's parts are of the kinds and shapes that the native code computes, and as they were made.

    Whether its later norm has weights, and whether it is in training, is left to the caller.
    """
    if not is_untouched(layer.norm2, nn.LayerNorm) or not is_untouched(layer.drop, Dropout) or not is_plain_mlp(layer.mlp):
        return False
    return all(is_plain(part) and part.bias is not None for part in (layer.norm1, layer.kqv, layer.proj)) and _agree(layer)


def _agree(layer: Any) -> bool:
    """Whether the shapes of a layer's weights fit one another, in whole groups of `LANES` where the native code asks for them."""
    (count, width), patch, hidden = layer.random_features.shape, layer.kqv.in_features, len(layer.mlp.fc1.weight)
    shapes = layer.kqv.weight.shape, layer.proj.weight.shape, layer.mlp.fc1.weight.shape, layer.mlp.fc2.weight.shape
    if shapes != ((3 * width, patch), (width, width), (hidden, width), (width, hidden)) or layer.norm2.normalized_shape != (width,):
        return False
    biases = layer.kqv.bias, layer.proj.bias, layer.mlp.fc1.bias, layer.mlp.fc2.bias, layer.norm1.weight, layer.norm1.bias
    lengths = tuple(map(len, biases)) == (3 * width, width, hidden, width, patch, patch)
    return lengths and count % LANES == width % LANES == 0
