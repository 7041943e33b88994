"""T2T-ViT as a classifier for inference on processors: of the last block what the class token needs."""

from typing import Any

from torch import Tensor, nn

from foveate.layers.recomputing import is_untouched
from foveate.layers.watching import is_recorded, is_watched
from foveate.models.t2t_vit import T2TViT
from foveate.speed.joined.joinable import Joined
from foveate.speed.joined.token_blocks import JoinedTokenBlock


class JoinedT2TViT(Joined, T2TViT):
    """The model, whose logits come from the class token: the last block computes keys and values of all tokens, and the rest for it alone.

    A model becomes one by `join`. Where the logits come from other tokens, or somebody has hooked what comes after the other blocks, all
    tokens are computed; so they are by `forward_features` and `forward_intermediates`, which give them away.
    """

    KIND = "classifier joined: of the last block what the class token needs"

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Whether `module` is a T2T-ViT whose last block is joined."""
        return type(module) is T2TViT and len(module.blocks) > 0 and isinstance(module.blocks[-1], JoinedTokenBlock)

    def forward(self, x: Tensor) -> Tensor:
        if not self._reads_one_token():
            return super().forward(x)
        _, tokens = self._embed(x)
        last: Any
        *blocks, last = self.blocks
        for block in blocks:
            tokens = self._run(block, tokens)
        return self.forward_head(self.norm(last.first_token(tokens)))

    def _reads_one_token(self) -> bool:
        """Whether the logits come from the class token, behind a joined block and a norm as it was made, and nobody wants to see more."""
        if self.training or self.global_pool != "token" or is_recorded() or is_watched():
            return False
        if not vars(self).keys().isdisjoint(("forward_features", "forward_head")):
            return False
        return len(self.blocks) > 0 and isinstance(self.blocks[-1], JoinedTokenBlock) and is_untouched(self.norm, nn.LayerNorm)
