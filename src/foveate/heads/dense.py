"""What a detector and a segmenter have in common: a backbone with a head, and what trainer and weight files ask of them."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from foveate.heads.backbone import Backbone


class DenseModel(nn.Module):
    """A backbone and a head on it.

    Attributes:
        class_layers: the modules whose width follows the number of classes: left fresh when weights of other classes are loaded.
    """

    class_layers: tuple[str, ...] = ()

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    @property
    def backbone(self) -> Backbone:
        return next(module for module in self.modules() if isinstance(module, Backbone))

    @property
    def network(self) -> Any:
        """The classification network inside."""
        return self.backbone.network

    @property
    def network_prefix(self) -> str:
        """What the names of the network's parameters begin with here."""
        return next(name for name, module in self.named_modules() if isinstance(module, Backbone)) + ".network."

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """What the loading of weights asks: the model's name, and the layers that depend on the number of classes."""
        return {"architecture": self.name, "classifier": self.class_layers}

    @property
    def token_order(self) -> str:
        """That of the network (see `FViT`), which the loading of weights settles; absent where the network has none."""
        order: str = self.network.token_order
        return order

    @token_order.setter
    def token_order(self, order: str) -> None:
        self.network.token_order = order

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the network wants undecayed."""
        return {self.network_prefix + name for name in getattr(self.network, "no_weight_decay", set)()}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.network.set_grad_checkpointing(enable)

    def head_modules(self) -> Iterator[nn.Module]:
        """Everything that holds parameters outside the network, none twice."""
        prefix = self.network_prefix.removesuffix(".")
        parts = prefix.split(".")
        above = {".".join(parts[:depth]) for depth in range(1, len(parts))}
        for name, module in self.named_modules():
            parent = name.rpartition(".")[0]
            if name and name != prefix and name not in above and (not parent or parent in above):
                yield module

    def compile_backbone(self) -> None:
        """Compile the backbone in place; what stands behind it has shapes that follow the data."""
        self.backbone.compile()
