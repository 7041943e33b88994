"""FViT's embedding of patches for inference on processors: convolution and layer norm in one native pass, see `native/embedding.py`."""

from typing import Any

from torch import Tensor, nn

from foveate.layers.recomputing import compute_dtype, is_untouched
from foveate.layers.watching import is_recorded
from foveate.models.fvit import PatchEmbedding
from foveate.speed.joined.joinable import Packed, are_for_chains, has_weights, is_for_chains, records_gradients
from foveate.speed.joined.parts import parts_of
from foveate.speed.native import embedding as native


class JoinedEmbedding(Packed, PatchEmbedding):
    """The embedding's equation in one pass: (B, C, H, W) -> (B, ceil(H/s), ceil(W/s), C').

    An embedding becomes one by `join`, and gives the same up to rounding. What the native code is not made for goes through the layers, as
    in `JoinedBlock`, and so does bfloat16 where its products are PyTorch's.
    """

    KIND = "embeddings joined: one native pass"
    can_join = staticmethod(native.can_join)

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Whether `module` is an embedding on the processor of the layers that the native code computes."""
        return type(module) is PatchEmbedding and _is_joinable(module) and are_for_chains(module.parameters())

    def forward(self, x_bchw: Tensor) -> Tensor:
        if is_recorded() or not (parts := parts_of(self)).says(_is_joinable) or not self._takes(x_bchw, parts.parameters):
            return super().forward(x_bchw)
        x_bhwc = x_bchw.permute(0, 2, 3, 1).to(compute_dtype(self.proj.weight))
        return native.run(x_bhwc.contiguous(), self.kept(parts.parameters))

    def _takes(self, x_bchw: Tensor, parameters: list[nn.Parameter]) -> bool:
        if x_bchw.dim() != 4 or x_bchw.shape[1] != self.proj.weight.shape[1] or records_gradients(x_bchw, parameters):
            return False
        return is_for_chains(x_bchw, parameters) and self.can_join(compute_dtype(self.proj.weight))

    def setting(self) -> object:
        return compute_dtype(self.proj.weight), self.stride, self.norm.eps

    def pack(self) -> native.Weights:
        proj, norm = self.proj, self.norm
        rows: Any = proj.bias, norm.weight, norm.bias
        return native.packed(proj.weight, rows, self.stride, norm.eps, compute_dtype(proj.weight))


def _is_joinable(embedding: Any) -> bool:
    """Whether an embedding's layers are what the native code computes, of shapes that fit one another."""
    proj, norm = embedding.proj, embedding.norm
    if not is_untouched(proj, nn.Conv2d) or not is_untouched(norm, nn.LayerNorm) or proj.bias is None:
        return False
    whole = proj.padding == (0, 0) and proj.dilation == (1, 1) and proj.groups == 1 and embedding.stride in (1, 2)
    fitting = proj.weight.shape[2:] == (2, 2) and proj.stride == (embedding.stride, embedding.stride)
    return whole and fitting and has_weights(norm) and (len(proj.weight),) == tuple(proj.bias.shape) == norm.normalized_shape
