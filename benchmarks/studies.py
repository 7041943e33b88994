"""The papers' ablations and headline questions, each a table that one command fills: `foveate compare` on what studies/studies.yaml lists.

    python benchmarks/studies.py DATA [STUDY ...] [--seeds 3] [--parallel 2] [--device cpu] [--runs runs/studies]

DATA is the folder that holds the data sets, unpacked: `cifar10`, `clothing`. Without names every study is run. Method: all rows of a study
are trained on the same pictures in the same order by one recipe, a file of studies/ or one of the package; a study that takes a part of a
data set names the pictures per class, the first by name. Studies with the same data and recipe share their trainings. Trainings that are
done are kept: the same command goes on where it was stopped, and more seeds may be asked for later. The file
`results/study_NAME_<hardware>_<date>.json` holds what the comparison gave, learning curves included, and its picture stands in docs/images.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from record import foveate, head, write

ROOT = Path(__file__).resolve().parents[1]
STUDIES = Path(__file__).parent / "studies"


def studies() -> dict[str, dict[str, Any]]:
    """What is asked, by name: `question`, `data`, `recipe`, `models`, and, for a part of the data, `per_class`."""
    return yaml.safe_load((STUDIES / "studies.yaml").read_text())


def part_of(data: Path, per_class: dict[str, int], out: Path) -> Path:
    """A folder with links to the first pictures by name of each class, as many as `per_class` says of each split."""
    for split, count in per_class.items():
        for folder in sorted((data / split).iterdir()):
            (out / split / folder.name).mkdir(parents=True, exist_ok=True)
            for picture in sorted(folder.iterdir())[:count]:
                link = out / split / folder.name / picture.name
                if not link.exists():
                    link.symlink_to(picture.resolve())
    return out


def run(name: str, study: dict[str, Any], given: argparse.Namespace) -> None:
    """Compare, then keep figures and picture."""
    data, set_name = given.data / study["data"], study["data"]
    if "per_class" in study:
        set_name += "".join(f"_{split}{count}" for split, count in study["per_class"].items())
        data = part_of(data, study["per_class"], given.runs / "data" / set_name)
    file, out = STUDIES / f"{study['recipe']}.yaml", given.runs / f"{set_name}_{study['recipe']}"
    how = ["--seeds", str(given.seeds), "--parallel", str(given.parallel), "--device", given.device]
    recipe = str(file) if file.exists() else study["recipe"]
    found = foveate("compare", str(data), "--models", ",".join(study["models"]), "--recipe", recipe, *how, "--out", str(out))
    shutil.copy(out / "comparison.png", ROOT / "docs" / "images" / f"study_{name}.png")
    asked = {"study": name, **{key: value for key, value in study.items() if key != "models"}}
    command = f"python benchmarks/studies.py DATA {name} {' '.join(how)}"
    kept = {key: value for key, value in found.items() if key not in ("data", "files")}
    record = {**head("benchmarks/studies.py", given.device), **asked, "command": command, "device": given.device, **kept}
    write(f"study_{name}", record, given.device)
    print(json.dumps({key: value for key, value in record.items() if key not in ("curves", "rows")}, indent=1))


def main() -> None:
    known = studies()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"{', '.join(known)}; all of them where none is named")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each row (default: 3)")
    parser.add_argument("--parallel", type=int, default=2, help="trainings at a time (default: 2)")
    parser.add_argument("--device", default="cpu", help="on which inference is timed, named in the record (default: cpu)")
    parser.add_argument("--runs", type=Path, default=Path("runs/studies"), help="folder for the trainings (default: runs/studies)")
    given = parser.parse_args()
    unknown = sorted(set(given.studies) - known.keys())
    if unknown:
        parser.error(f"found {', '.join(unknown)}, expected {', '.join(known)}")
    for name in given.studies or known:
        run(name, known[name], given)


if __name__ == "__main__":
    main()
