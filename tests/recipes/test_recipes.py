"""Every recipe is a promise: settings that exist, of the right type, that differ from the defaults, under a header that can be trusted."""

import re
from dataclasses import MISSING, fields

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from foveate.errors import UserError
from foveate.factory import create_model, list_models
from foveate.published import PUBLISHED
from foveate.recipes import FOLDER, list_recipes, load_recipe
from foveate.tasks.settings import TrainSettings

LABELS = ("Command", "Hardware", "Hours", "Published", "Seen")


def header(name):
    """The recipe's comment: each label with its text, lines joined."""
    lines = [line[1:].strip() for line in (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    entries, label = {}, "What"
    for line in lines:
        match = re.match(r"([A-Z][a-z]+(?: [a-z]+)?):\s+(.*)", line)
        label, text = match.groups() if match else (label, line)
        entries[label] = f"{entries.get(label, '')} {text}".strip()
    return entries


@pytest.fixture(params=list_recipes())
def name(request):
    return request.param


def test_every_setting_exists_and_has_its_type(name):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TrainSettings)
    parser.parse_object(load_recipe(name))
    settings = TrainSettings.from_plain(load_recipe(name))
    assert settings.plain() == {**TrainSettings().plain(), **load_recipe(name)}


def test_a_setting_of_a_wrong_type_would_be_found():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TrainSettings)
    for wrong in ({"epochs": "many"}, {"lr": "1e-3 or so"}, {"crop": "centre"}, {"epochz": 3}):
        with pytest.raises(Exception, match=next(iter(wrong))):
            parser.parse_object(wrong)


def test_only_what_differs_from_the_defaults_is_written(name):
    usual = {field.name: field.default if field.default is not MISSING else field.default_factory() for field in fields(TrainSettings)}
    recipe = load_recipe(name)
    assert "model" in recipe, "which model a recipe trains is said even where it is the default"
    assert [key for key, value in recipe.items() if key != "model" and usual[key] == value] == []


def test_no_setting_is_written_twice(name):
    keys = re.findall(r"^(\w+):", (FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), re.M)
    assert sorted(keys) == sorted(load_recipe(name))


def test_the_header_says_everything(name):
    entries = header(name)
    assert entries["What"] and set(LABELS) <= set(entries) and all(entries[label] for label in LABELS)
    assert entries["Command"].startswith("foveate train ") and f"--recipe {name}" in entries["Command"]
    assert entries["Seen"] == "not yet run" or re.search(r"\d", entries["Seen"])
    mentioned = set(re.findall(r"\b(?:fvit|t2t_vit)_\w+", entries["Command"])) - set(list_recipes())
    assert mentioned <= set(list_models()) and load_recipe(name)["model"] in list_models()


@pytest.mark.parametrize("name", [name for name in list_recipes() if "model_options" in load_recipe(name)])
def test_the_model_takes_the_options(name):
    settings = TrainSettings.from_plain(load_recipe(name))
    options = {**settings.model_options, "small_images": settings.small_images}
    model = create_model(settings.model, num_classes=10, in_chans=settings.in_chans, img_size=settings.img_size, **options).eval()
    assert model(torch.zeros(2, settings.in_chans, settings.img_size, settings.img_size)).shape == (2, 10)


@pytest.mark.parametrize("name", [name for name in list_recipes() if name.startswith("imagenet") and not name.endswith("384")])
def test_published_numbers_are_those_of_the_table(name):
    entries = header(name)
    trained = {load_recipe(name)["model"], *re.findall(r"\b(?:fvit|t2t_vit)_\w+", entries["Command"])} - {name}
    trained &= set(list_models())
    stated = re.findall(r"\d\d\.\d(?!\d)", entries["Published"].split(";")[0])
    assert sorted(map(float, stated)) == sorted(PUBLISHED[model].top1 for model in trained)


def test_every_published_training_has_a_recipe():
    commands = " ".join(
        header(name)["Command"] + " " + load_recipe(name)["model"] for name in list_recipes() if name.startswith("imagenet")
    )
    published = {name for name, facts in PUBLISHED.items() if facts.top1 is not None}
    assert published <= set(re.findall(r"\w+", commands))
    assert all(name.endswith("_plus") for name in set(list_models()) - published), "only our own variants were never published"


def test_an_unknown_name_gets_the_known_ones_and_the_close_ones():
    with pytest.raises(UserError, match=r"'imagenet_fivt', expected .*small_set.*; did you mean imagenet_fvit"):
        load_recipe("imagenet_fivt")


def test_a_file_of_ones_own(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"epochs": 3}))
    assert load_recipe(file) == load_recipe(str(file)) == {"epochs": 3}
    file.write_text("# nothing but defaults\n")
    assert load_recipe(file) == {}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read"),
        ("- epochs\n", "found list"),
        ("3\n", "found int"),
        ("a: [1\n", "is not YAML"),
        ("1: 2\n", "expected lines"),
        (b"\xff\xfe\xff", "is not YAML"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path, content, complaint):
    file = tmp_path / "mine.yaml"
    if content is not None:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError, match=complaint) as error:
        load_recipe(file)
    assert "\n" not in str(error.value) and "mine.yaml" in str(error.value)


def test_nothing_in_a_recipe_is_executed(tmp_path):
    file = tmp_path / "hostile.yaml"
    file.write_text(f"a: !!python/object/apply:os.system ['touch {tmp_path}/ran']\n")
    with pytest.raises(UserError, match="is not YAML"):
        load_recipe(file)
    assert not (tmp_path / "ran").exists()
