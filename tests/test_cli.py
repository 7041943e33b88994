"""The command line as a user meets it: real processes, exit codes, one line per mistake."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import Command
from foveate.cli import fill_switches, hyphens_to_underscores, make_parser, option_names, option_value
from foveate.recipes import load_recipe
from foveate.verbs.demo import demo
from foveate.verbs.train import train
from foveate_command import VERBS


def test_door_answers_without_torch() -> None:
    code = "import sys; sys.argv = ['foveate', '--help']; import foveate_command; foveate_command.main(); assert 'torch' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for verb, what in VERBS.items():
        assert verb in result.stdout
        assert what in result.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["trian"], "found 'trian', expected one of train"),
        (["models", "x*"], "found no name that matches 'x*'"),
        (["models", "--pattern", "x"], "found --pattern, expected its value alone: foveate models [PATTERN] [options]"),
        (["train", "/nowhere/at/all"], "/nowhere/at/all"),
        (["train", "digits", "--recipe", "digits_fvti"], "digits_fvit"),
        (["train", "digits", "--epochs", "many"], "epochs: found 'many', expected a whole number"),
        (["train", "digits", "--img-size", "x"], "img_size: found 'x', expected a whole number, or null for none"),
        (["train", "digits", "--accelerator", "tpu"], "accelerator: found 'tpu', expected auto, cpu, gpu, mps"),
        (["train", "digits", "--model-options", "3"], "found '3', expected options with values, as in --model-options.paths 2"),
        (
            ["train", "digits", "--batchsize", "8"],
            "found --batchsize 8, expected foveate train [DATA] [options]; did you mean --batch-size",
        ),
        (["train", "digits", "--recip", "digits_fvit"], "did you mean --recipe?"),
        (["convert", "x.pth"], "found no --model and no --out, expected foveate convert SOURCE --model MODEL --out OUT [options]"),
        (["train", "digits", "--out", __file__], "found a file, expected the name of a folder to make"),
        (["doctor", "digits", "--sheet", "nowhere/sheet.png"], "found no folder nowhere"),
        (["evaluate", "/nowhere", "digits"], "found no weights"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(arguments: list[str], expected: str, tmp_path: Path, foveate: Command) -> None:
    result = foveate(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert expected in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_mistake_is_one_line_of_a_process_that_was_just_started(tmp_path: Path) -> None:
    """Whatever libraries say while they are loaded."""
    command = [sys.executable, "-m", "foveate", "train", "digits", "--epochs", "many"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr == "foveate train: epochs: found 'many', expected a whole number\n"


def test_debug_shows_where(tmp_path: Path, foveate: Command) -> None:
    assert "Traceback" in foveate("models", "x*", "--debug", cwd=tmp_path).stderr


def test_json_can_be_piped(foveate: Command) -> None:
    rows = json.loads(foveate("models", "t2t_vit_1?", "--json").stdout)
    assert [row["model"] for row in rows] == ["t2t_vit_10", "t2t_vit_12", "t2t_vit_14", "t2t_vit_19"]


def test_explicit_options_override_the_recipe() -> None:
    arguments = ["digits", "--recipe", "digits_fvit", "--epochs", "2"]
    options = make_parser("train", train, arguments).parse_args(arguments)
    recipe = load_recipe("digits_fvit")
    assert options.epochs == 2
    assert options.lr == recipe["lr"]
    assert dict(options.model_options) == recipe["model_options"]


def test_every_verb_explains_its_options(foveate: Command) -> None:
    for verb in VERBS:
        result = foveate(verb, "--help")
        assert result.returncode == 0, result.stderr
        assert "--json" in result.stdout
        assert not [line for line in result.stdout.splitlines() if line.lstrip().startswith("--") and "_" in line.split()[0]]
        assert "type:" not in result.stdout
        assert "null)" not in result.stdout


def test_help_begins_with_what_cannot_be_left_out(foveate: Command) -> None:
    assert foveate("convert", "--help").stdout.startswith("usage: foveate convert SOURCE --model MODEL --out OUT [options]\n")
    assert foveate("predict", "--help").stdout.startswith("usage: foveate predict SOURCE PICTURES ... [options]\n")
    train_help = foveate("train", "--recipe", "quick", "--help").stdout
    assert train_help.startswith("usage: foveate train [DATA] [options]\n")
    assert f"excluded. (default: {load_recipe('quick')['epochs']})" in " ".join(train_help.split())


def test_option_names_and_switches() -> None:
    assert hyphens_to_underscores("--batch-size=8-9") == "--batch_size=8-9"
    assert hyphens_to_underscores("a-b") == "a-b"
    assert fill_switches(["--compile", "--seed", "3", "--tensorboard"], ["compile", "tensorboard"]) == [
        "--compile",
        "true",
        "--seed",
        "3",
        "--tensorboard",
        "true",
    ]
    assert fill_switches(["--compile", "false"], ["compile"]) == ["--compile", "false"]
    assert fill_switches([], ["compile"]) == []
    assert option_value(["--recipe=x"], "--recipe") == "x"
    assert option_value(["--recipe=x", "--recipe", "y"], "--recipe") == "y"
    assert option_value(["--seed", "1"], "--recipe") is None
    assert option_value([], "--recipe") is None
    assert option_names(["digits", "--batch_size=8", "--model_options.paths", "2", "--json"]) == {"batch_size", "model_options", "json"}


def test_a_misspelt_key_in_a_recipe_is_one_line(tmp_path: Path, foveate: Command) -> None:
    (tmp_path / "mine.yaml").write_text("epoch: 3\n")
    result = foveate("train", "digits", "--recipe", str(tmp_path / "mine.yaml"), cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.strip() == (
        "foveate train: unknown training settings: found epoch, expected options of train; did you mean epochs?"
    )


def test_the_makefile_calls_the_demo_as_it_is() -> None:
    command = next(line for line in (Path(__file__).resolve().parents[1] / "Makefile").read_text().splitlines() if "foveate demo" in line)
    arguments = command.split("foveate demo")[1].split()
    assert make_parser("demo", demo, arguments).parse_args(arguments).out == Path("demo")
