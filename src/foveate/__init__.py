"""Foveate: FViT and T2T-ViT vision backbones, exact at any picture size.

Importing it registers every model with timm: `timm.create_model("fvit_tiny", features_only=True)` just works.
"""

from foveate.factory import create_model, list_models
from foveate.memory import keep_freed_memory
from foveate.opening import open_model
from foveate.speed.optimizing import optimize, optimize_for_training
from foveate.weights.load import LoadReport, load_weights

__version__ = "0.1.0"

__all__ = [
    "LoadReport",
    "__version__",
    "create_model",
    "keep_freed_memory",
    "list_models",
    "load_weights",
    "open_model",
    "optimize",
    "optimize_for_training",
]
