"""Write the tables of README.md and docs/results.md from the files in benchmarks/results: `python benchmarks/report.py`.

A test holds the pages equal to what this would write. Published numbers never stand in these tables.
"""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
END = "<!-- end -->"
PAGES = ("README.md", "docs/results.md")


def table(rows: list[list[str]]) -> str:
    """A Markdown table; the first row is the heading, all columns but the first are numbers."""
    heading, *body = rows
    rule = ["---", *["---:"] * (len(heading) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in [heading, rule, *body])


def demo_table(record: dict[str, Any]) -> str:
    """The table that `foveate demo` prints."""
    rows = [["model", "parameters", "top-1", "seconds", "pictures/s"]]
    for row in record["rows"]:
        figures = f"{row['parameters']:,}", f"{row['top1']:.2%}", f"{row['seconds']:.0f}", f"{row['images_per_second']:.0f}"
        rows.append([row["model"], *figures])
    return table(rows)


def from_scratch_table(record: dict[str, Any]) -> str:
    """One row per model of `from_scratch.py`, the command of the first one, and where it ran."""
    rows = [["model", "parameters", "held-out top-1", "loss", "training minutes", "pictures/s"]]
    for run in record["runs"]:
        held_out = run["held_out"]
        figures = f"{run['parameters']:,}", f"{held_out['top1']:.1%}", f"{held_out['loss']:.3f}", f"{run['minutes']:.1f}"
        rows.append([run["model"], *figures, f"{run['training_pictures_per_second']:.0f}"])
    held_out = record["runs"][0]["held_out"]
    text = f"{held_out['pictures']} pictures held out ({held_out['split']}); {record['hardware']}, torch {record['versions']['torch']}, "
    text += f"{record['date']}; one run each. Commands:\n\n"
    return table(rows) + "\n" + text + "".join(f"    {run['command']}\n" for run in record["runs"])


def filled(page: str) -> str:
    """The page with every marked place written anew from the file that it names."""
    parts = page.split("<!-- from ")
    for place, part in enumerate(parts[1:], start=1):
        name, _, rest = part.partition(" -->\n")
        record = json.loads((RESULTS / name).read_text())
        text = demo_table(record) if record["method"] == "foveate demo" else from_scratch_table(record)
        parts[place] = f"{name} -->\n\n{text}\n{rest[rest.index(END) :]}"
    return "<!-- from ".join(parts)


def main() -> None:
    for name in PAGES:
        page = ROOT / name
        page.write_text(filled(page.read_text()))


if __name__ == "__main__":
    main()
