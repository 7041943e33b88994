"""Which parameters learn, how fast, and which of them decay."""

from typing import Any

import torch
from timm.models import group_parameters
from torch import nn

from foveate.errors import UserError
from foveate.heads.dense import DenseModel
from foveate.tasks.settings import TrainSettings


def freeze_backbone(model: nn.Module) -> None:
    """Leave only the head learnable; `training_mode` keeps the rest in evaluation mode (no dropout, fixed statistics)."""
    model.requires_grad_(False)
    for module in head_modules(model):
        module.requires_grad_(True)


def training_mode(model: nn.Module, frozen: bool) -> None:
    """Training mode for all of `model`, or for its head alone where the backbone is frozen."""
    model.train()
    if frozen:
        backbone: nn.Module = model.network if isinstance(model, DenseModel) else model
        backbone.eval()
        for module in head_modules(model):
            module.train()


def head_modules(model: nn.Module) -> list[nn.Module]:
    """What stands on the backbone: the classifier, or all of a detector or segmenter but its network."""
    return list(model.head_modules()) if isinstance(model, DenseModel) else [classifier(model)]


def classifier(model: nn.Module) -> nn.Module:
    """The last linear layer, by timm's contract `get_classifier()`; `UserError` where the model has none."""
    layer = getattr(model, "get_classifier", lambda: None)()
    if not isinstance(layer, nn.Module) or not any(True for _ in layer.parameters()):
        raise UserError(f"{type(model).__name__} has no classifier to train, expected a model with one linear layer at its end")
    return layer


def parameter_groups(model: nn.Module, settings: TrainSettings) -> list[dict[str, Any]]:
    """Groups for an optimiser: `params`, `weight_decay`, `lr_scale` (the factor on the schedule's rate) and `names`.

    No decay for whatever has at most one axis (biases, norms) and for the names in the model's `no_weight_decay()` (tables, class token,
    Gabor parameters). `lr_scale` = layer_decay^(layers above) * (backbone_lr_scale, or 1 for the head), layers by the model's
    `group_matcher()`. Frozen parameters appear in no group.
    """
    undecayed = set(getattr(model, "no_weight_decay", set)())
    head = {id(parameter) for module in head_modules(model) for parameter in module.parameters()}
    depth = _layers_above(model) if settings.layer_decay != 1.0 else {}
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = 0.0 if parameter.ndim <= 1 or name in undecayed else settings.weight_decay
        scale = settings.layer_decay ** depth.get(name, 0) * (1.0 if id(parameter) in head else settings.backbone_lr_scale)
        group = groups.setdefault((decay, scale), {"params": [], "names": [], "weight_decay": decay, "lr_scale": scale})
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def _layers_above(model: nn.Module) -> dict[str, int]:
    """For each parameter the number of layers between it and the head."""
    network, prefix = (model.network, model.network_prefix) if isinstance(model, DenseModel) else (model, "")
    matcher = getattr(network, "group_matcher", None)
    if matcher is None:
        raise UserError(f"{type(network).__name__} does not tell its layers apart, so --layer-decay must be 1")
    layer_of = group_parameters(network, matcher(coarse=False), reverse=True)
    head = max(layer_of.values()) + isinstance(model, DenseModel)
    return {prefix + name: head - layer for name, layer in layer_of.items()}


def make_optimizer(model: nn.Module, settings: TrainSettings, *, fused: bool) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov momentum; the learning rate is set before every step (`set_learning_rate`)."""
    groups = parameter_groups(model, settings)
    if not groups:
        raise UserError("nothing to train: every parameter is frozen")
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.momentum > 0, fused=fused)
    return torch.optim.AdamW(groups, lr=settings.lr, fused=fused)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]
