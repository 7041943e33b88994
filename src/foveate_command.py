"""The door of the command line: what must answer at once, before torch is loaded.

It stands beside the package, since importing anything of the package loads timm and torch.
"""

import sys
from importlib.metadata import version

VERBS = {
    "train": "train a model to classify, detect or segment, from scratch or from weights",
    "evaluate": "how good a trained model is, exactly: accuracy, AP or mean IoU, class by class",
    "predict": "say what is on pictures: classes, objects with boxes and masks, or a class per pixel",
    "models": "the table of models: parameters, MACs, published accuracy",
    "bench": "speed and memory of models on this machine, side by side",
    "compare": "train several models on the same pictures at one budget, and say which to take",
    "convert": "the authors' and Paddle's weight files into ours, and back",
    "doctor": "look a data set over before training on it",
    "demo": "train two small models on the embedded digits and compare them",
}


def main() -> None:
    """Entry point of the command `foveate`."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        sys.stdout.write(usage())
    elif arguments[0] == "--version":
        sys.stdout.write(f"foveate {version('foveate')}\n")
    elif arguments[0] not in VERBS:
        sys.stderr.write(f"foveate: found {arguments[0]!r}, expected one of {', '.join(VERBS)}; see 'foveate --help'\n")
        sys.exit(2)
    else:
        from foveate.cli import run_verb  # noqa: PLC0415 (loads torch)

        sys.exit(run_verb(arguments[0], arguments[1:]))


def usage() -> str:
    """The help text of the whole command."""
    width = max(map(len, VERBS))
    rows = "".join(f"  {verb:<{width}}  {what}\n" for verb, what in VERBS.items())
    return (
        "usage: foveate VERB [options]\n\n"
        "FViT and T2T-ViT vision backbones: train, evaluate, predict and ship.\n\n"
        f"verbs:\n{rows}\n"
        "  foveate VERB --help  options of a verb, with units and defaults\n"
        "  foveate --version    version\n"
    )
