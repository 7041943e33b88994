"""The model card: whatever is written is read back, and what this version does not know is refused in one line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveate.card import HEADS, ModelCard, Preprocessing, WholePicture
from foveate.errors import UserError

NUMBERS = st.floats(0.1, 2).map(float)
CHANNELS = st.sampled_from([1, 3, 4])
NAMES = st.lists(st.text(max_size=6), max_size=4).map(tuple)


@st.composite
def cards(draw: st.DrawFn) -> ModelCard:
    task = draw(st.sampled_from(sorted(HEADS)))
    channels = draw(CHANNELS)
    normed = {name: tuple(draw(st.lists(NUMBERS, min_size=channels, max_size=channels))) for name in ("mean", "std")}
    sides = draw(st.tuples(st.integers(1, 900), st.integers(1, 900)))
    recipe = Preprocessing(sides, max(sides), **normed) if task == "classify" else WholePicture(min(sides), max(sides), **normed)
    names = draw(NAMES)
    return ModelCard(
        model=draw(st.text(min_size=1, max_size=9)),
        num_classes=len(names),
        in_chans=channels,
        options=draw(st.dictionaries(st.text(max_size=5), st.one_of(st.booleans(), st.integers(), st.lists(st.integers(), max_size=4)))),
        class_names=names,
        preprocessing=recipe,
        task=task,
        head=draw(st.sampled_from(HEADS[task])),
        category_ids=tuple(draw(st.lists(st.integers(0, 10**9), max_size=4))) if task == "detect" else (),
        results=draw(st.dictionaries(st.sampled_from(["miou", "box_ap", "top1"]), NUMBERS)),
        foveate="1.2.3",
    )


@given(cards())
def test_a_card_survives_json(card: ModelCard) -> None:
    assert ModelCard.from_json(card.to_json()) == card


def test_a_card_without_a_task_classifies() -> None:
    """Cards of the first files knew nothing of tasks."""
    values = json.loads(ModelCard("fvit_tiny", 3).to_json())
    for name in ("task", "head", "category_ids"):
        del values[name]
    assert ModelCard.from_json(json.dumps(values)) == ModelCard("fvit_tiny", 3)


DENSE = json.loads(ModelCard("fvit_tiny", 3, preprocessing=WholePicture(), task="detect", head="retinanet").to_json())


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({**DENSE, "head": "yolo"}),
        json.dumps({**DENSE, "head": ""}),
        json.dumps({**DENSE, "head": "semantic_fpn"}),
        json.dumps({**DENSE, "task": "pose"}),
        json.dumps({**DENSE, "task": "classify"}),
        json.dumps({**DENSE, "task": ["detect"]}),
        json.dumps({**DENSE, "head": ["retinanet"]}),
        json.dumps({**DENSE, "surprise": 1}),
        json.dumps({**DENSE, "preprocessing": {"size": [3, 3]}}),
        json.dumps({**DENSE, "preprocessing": None}),
        json.dumps({**DENSE, "num_classes": "3"}),
        json.dumps({name: value for name, value in DENSE.items() if name != "model"}),
        "[]",
        "3",
        "{",
    ],
)
def test_what_this_version_does_not_know_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"unreadable model card: found .*expected") as error:
        ModelCard.from_json(text)
    assert "\n" not in str(error.value)


def test_the_recipe_of_the_other_task_is_refused() -> None:
    with pytest.raises(UserError, match="expected one that classifies"):
        _ = ModelCard.from_json(json.dumps(DENSE)).picture_recipe
    with pytest.raises(UserError, match="expected one that detects or segments"):
        _ = ModelCard("fvit_tiny", 3).whole_picture


@pytest.mark.parametrize(
    ("stored", "resized"), [((640, 480), (1067, 800)), ((480, 640), (800, 1067)), ((2000, 500), (1333, 333)), ((1, 5000), (1, 1333))]
)
def test_whole_pictures_keep_their_proportions(stored: tuple[int, int], resized: tuple[int, int]) -> None:
    assert WholePicture().size(*stored) == resized
