"""What is known of every model before it is built: its size, and the accuracy that others have published for it.

Accuracy is ImageNet-1K top-1 in percent at 224 px, from the sources named; none of it was measured by this project. "Derived" means
computed from the differences to baselines that the source's text states, since its table could not be recovered. Sizes are this project's
own, counted by `counting.count_parameters` and `counting.count_macs` at 1000 classes and 224 px and kept here because counting takes a
second per model; a test counts them again.
"""

from typing import NamedTuple

T2T = "arXiv 2101.11986"
FVIT_PAPER = "arXiv 2402.11303 v1/v2, derived"
FVIT_TINY_PAPER = "arXiv 2402.11303 v1/v2, derived, uncertain"
FVIT_RELEASED = "arXiv 2402.11303 v3"
OURS = "this project; ImageNet not yet run"


class Published(NamedTuple):
    """One model: parameters, multiply-accumulates of one picture, top-1 in percent, its source, and whether the authors offer weights.

    top-1 is None for this project's own variants, of which nothing is published.
    """

    parameters: int
    macs: int
    top1: float | None
    source: str
    weights: bool


PUBLISHED: dict[str, Published] = {
    "fvit_tiny": Published(13_982_440, 2_306_484_800, 78.4, FVIT_TINY_PAPER, weights=False),
    "fvit_tiny_dp": Published(12_504_192, 2_272_910_584, 79.1, FVIT_RELEASED, weights=True),
    "fvit_tiny_plus": Published(13_982_440, 2_306_484_800, None, OURS, weights=False),
    "fvit_small": Published(27_510_064, 4_709_940_320, 81.1, FVIT_PAPER, weights=False),
    "fvit_small_dp": Published(25_976_980, 4_671_934_452, 82.3, FVIT_RELEASED, weights=True),
    "fvit_small_plus": Published(27_510_064, 4_709_940_320, None, OURS, weights=False),
    "fvit_base": Published(46_416_600, 8_015_460_720, 82.1, FVIT_PAPER, weights=False),
    "fvit_base_dp": Published(44_830_525, 7_973_047_185, 83.4, FVIT_RELEASED, weights=True),
    "fvit_base_plus": Published(46_416_600, 8_015_460_720, None, OURS, weights=False),
    "fvit_large": Published(66_130_672, 11_464_531_184, 82.5, FVIT_PAPER, weights=False),
    "fvit_large_dp": Published(64_486_566, 11_417_644_462, 83.8, FVIT_RELEASED, weights=True),
    "fvit_large_plus": Published(66_130_672, 11_464_531_184, None, OURS, weights=False),
    "t2t_vit_7": Published(4_310_222, 1_148_688_768, 71.7, T2T, weights=True),
    "t2t_vit_10": Published(5_889_230, 1_518_153_600, 75.2, T2T, weights=True),
    "t2t_vit_12": Published(6_941_902, 1_764_463_488, 76.5, T2T, weights=True),
    "t2t_vit_14": Published(21_545_550, 4_785_293_696, 81.5, T2T, weights=True),
    "t2t_vit_19": Published(39_177_422, 8_481_507_328, 81.9, T2T, weights=True),
    "t2t_vit_24": Published(64_105_934, 13_663_699_840, 82.3, T2T, weights=True),
    "t2t_vit_t_14": Published(21_541_070, 6_090_547_072, 81.7, T2T, weights=True),
    "t2t_vit_t_19": Published(39_172_942, 9_786_760_704, 82.4, T2T, weights=True),
    "t2t_vit_t_24": Published(64_101_454, 14_968_953_216, 82.6, T2T, weights=True),
    "t2t_vit_c_14": Published(21_421_992, 4_586_251_776, 80.8, T2T, weights=False),
    "t2t_vit_14_resnext": Published(21_545_550, 4_785_293_696, 81.5, T2T, weights=False),
    "t2t_vit_14_wide": Published(25_156_302, 5_231_174_528, 77.9, T2T, weights=False),
    "t2t_vit_14_se": Published(21_803_598, 4_785_551_744, 81.6, T2T, weights=False),
    "t2t_vit_dense": Published(23_647_062, 5_277_933_120, 80.6, T2T, weights=False),
    "t2t_vit_16_ghost": Published(16_253_262, 3_799_146_368, 79.5, T2T, weights=False),
}


# Well-known peers, by their names in timm; sources are the papers that introduced the accuracy.
PEERS: dict[str, float] = {
    "resnet18": 69.8,
    "resnet50": 76.1,
    "regnety_008": 76.3,
    "regnety_016": 78.0,
    "regnety_040": 79.4,
    "deit_small_patch16_224": 79.8,
    "deit_base_patch16_224": 81.8,
    "poolformer_s12": 77.2,
    "poolformer_s24": 80.3,
    "poolformer_s36": 81.4,
}


def published_top1(model: str) -> float | None:
    """ImageNet-1K top-1 in percent as published for one of our models or a well-known peer; None where none is kept here."""
    return PUBLISHED[model].top1 if model in PUBLISHED else PEERS.get(model)
