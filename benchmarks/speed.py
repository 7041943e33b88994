"""Our models beside their peers: `foveate bench` on the cases that docs/performance.md tells of, one JSON file each.

    python benchmarks/speed.py infer | infer_bfloat16 | train | size | family

Method: that of `foveate bench`: every model in a process of its own, in turns, after passes to warm up; medians of the rounds, smallest and
largest beside, ratios as medians of the rounds' ratios, since the machine drifts meanwhile; the machine's matrix product and copy measured
between the rounds. `infer`: batch 16 at 224 px, float32, ours also after `foveate.optimize`. `infer_bfloat16`: the same under autocast.
`train`: batch 8, forward, cross-entropy, backward, AdamW, ours also after `foveate.optimize_for_training`. `size`: 224 to 1024 px, one
picture, as in `infer`. `family`: FViT-Tiny's three forms as in `infer`, without peers.
"""

import argparse

from record import foveate, head, write

PEERS = ("regnety_016", "poolformer_s12", "resnet18", "deit_small_patch16_224")
GROWTH = ("--grow", "size", "--batch", "1", "--picture", "docs/images/growth.png")  # from the root of the repository
OURS = ("fvit_tiny_dp", "fvit_tiny", "t2t_vit_7", "t2t_vit_14")
CASES = {
    "infer": (*OURS, *PEERS, "--optimize", "--rounds", "11"),
    "infer_bfloat16": (*OURS, *PEERS, "--optimize", "--dtype", "bfloat16", "--rounds", "3"),
    "train": ("fvit_tiny_dp", "fvit_tiny", "t2t_vit_14", *PEERS, "--mode", "train", "--batch", "8", "--rounds", "11"),
    "family": ("fvit_tiny_dp", "fvit_tiny", "fvit_tiny_plus", "--optimize", "--rounds", "7"),
    "size": (*("fvit_small", "t2t_vit_14", "deit_small_patch16_224", "--optimize", "--rounds", "3"), *GROWTH),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=CASES)
    what = parser.parse_args().what
    record = foveate("bench", *CASES[what])
    device = record["device"]
    write(f"speed_{what}", {**head("foveate bench", device), "command": " ".join(("foveate bench", *CASES[what])), **record}, device)


if __name__ == "__main__":
    main()
