"""Write the tables of README.md and docs/results.md from the files in benchmarks/results: `python benchmarks/report.py`.

A test holds the pages equal to what this would write. Published numbers never stand in these tables.
"""

import json
import re
import statistics
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
END = "<!-- end -->"
PAGES = ("README.md", "docs/results.md", "docs/performance.md")


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
    return table(rows) + "\n" + _origin(record)


def dense_table(record: dict[str, Any]) -> str:
    """`from_scratch_table` for detection and segmentation."""
    names = ("box_ap", "box_ap50", "box_ap75", "mask_ap", "miou", "pixel_accuracy")
    spoken = ("box AP", "box AP50", "box AP75", "mask AP", "mIoU", "pixel accuracy")
    held_out = record["runs"][0]["held_out"]
    shown = [(name, words) for name, words in zip(names, spoken, strict=True) if name in held_out]
    rows = [["model", "parameters", *(words for _, words in shown), "training minutes", "steps", "pictures/s"]]
    for run in record["runs"]:
        figures = [f"{run['held_out'][name]:.1%}" for name, _ in shown]
        speed = f"{run['minutes']:.1f}", f"{run['steps']:,}", f"{run['training_pictures_per_second']:.1f}"
        rows.append([f"{run['head']} on {run['model']}", f"{run['parameters']:,}", *figures, *speed])
    figure = "box_ap" if "box_ap" in held_out else "iou"
    classes = [["class", *(run["model"] for run in record["runs"])]]
    for place, row in enumerate(record["runs"][0]["classes"]):
        values = (run["classes"][place][figure] for run in record["runs"])
        classes.append([row["class"], *("-" if value is None else f"{value:.1%}" for value in values)])
    what = "box AP" if figure == "box_ap" else "IoU"
    return f"{table(rows)}\n{what} by class:\n\n{table(classes)}\n" + _origin(record)


def study_rows(record: dict[str, Any]) -> str:
    """The rows of `studies.py`, the best first, and how far each is from the first: a row that is not told apart may differ by chance."""
    several = any(row["deviation"] is not None for row in record["rows"])
    apart_by = "told apart" if several else "told apart by pictures"
    rows = [["model", "top-1", "±", "points behind", "p", apart_by, "parameters", "GMACs", "inference, pictures/s"]]
    best = record["rows"][0]
    for row in record["rows"]:
        spread = "-" if row["deviation"] is None else f"{100 * row['deviation']:.1f}"
        behind = "-" if row is best else f"{100 * (best['mean'] - row['mean']):.1f}"
        p = "-" if row["p"] is None else f"{row['p']:.2g}"
        apart = {None: "-", True: "yes", False: "no"}[row["told_apart"]]
        speed = "-" if row["images_per_second"] is None else f"{row['images_per_second']:.0f}"
        macs = "-" if row["macs"] is None else f"{row['macs'] / 1e9:.3f}"
        rows.append([row["model"], f"{row['mean']:.1%}", spread, behind, p, apart, f"{row['parameters']:,}", macs, speed])
    return table(rows)


def study_origin(record: dict[str, Any]) -> str:
    """On what the rows of a study were measured, and where."""
    trainings = sorted({len(row["figures"]) for row in record["rows"]})
    each = f"{' to '.join(map(str, trainings))} training{'' if trainings == [1] else 's'} each"
    classes = f", the first {record['per_class']['train']:,} of each class to train" if "per_class" in record else ""
    return f"{record['pictures']:,} pictures held out ({record['split']}) of {record['data']}{classes}; {each}; {_machine(record)}."


def study_table(record: dict[str, Any]) -> str:
    """A study with the sentence that follows from it, its command and its picture."""
    picture = f"![the same as a picture, with learning curves](images/study_{record['study']}.png)"
    origin = f"{study_origin(record)} Command:\n\n    {record['command']}"
    return f"{study_rows(record)}\n{record['recommendation']}\n\n{origin}\n\n{picture}\n"


def step_table(record: dict[str, Any]) -> str:
    """The training steps of `dense_cost.py`."""
    rows = [["backbone", "seconds per step", "smallest to largest", "peak memory MiB"]]
    for row in record["rows"]:
        spread = " to ".join(f"{second:.2f}" for second in row["seconds_range"])
        rows.append([row["model"], f"{row['seconds']:.2f}", spread, f"{row['peak_mib']:,}"])
    first = record["rows"][0]
    return table(rows) + f"\nOne picture of {first['height']} x {first['width']}; {_machine(record)}.\n"


def speed_table(record: dict[str, Any]) -> str:
    """What `foveate bench` measured, by `speed.py`; against the peers that the rows hold, or the first row where they hold none."""
    sizes = len({row["size"] for row in record["rows"]}) > 1
    speed = {row["model"]: row["of_rounds"] for row in record["rows"] if row["form"] == "eager" and not sizes}
    peers = [name for name in ("regnety_016", "poolformer_s12", "resnet18", "deit_small_patch16_224") if name in speed]
    against = [] if sizes else peers or list(speed)[:1]
    rows = [["model", "form", *(["px", "ms"] if sizes else ["pictures/s"]), "spread", *(f"x {name}" for name in against)]]
    rows[0] += ["peak MiB", "GMACs", "of matrix product", "of copy"]
    for row in record["rows"]:
        ratios = [f"{statistics.median(own / its for own, its in zip(row['of_rounds'], speed[name], strict=True)):.2f}" for name in against]
        median, *spread = row["images_per_second"], row["slowest_round"], row["fastest_round"]
        speeds = (median, *(reversed(spread) if sizes else spread))  # the smaller number first
        shown = [f"{1000 * row['batch'] / speed:,.0f}" if sizes else f"{speed:.1f}" for speed in speeds]
        tail = f"{row['peak_bytes'] / 2**20:,.0f}", f"{row['macs'] / 1e9:.2f}", f"{row['matrix_share']:.0%}", f"{row['copy_share']:.0%}"
        side = [str(row["size"])] if sizes else []
        rows.append([row["model"], row["form"], *side, shown[0], f"{shown[1]} to {shown[2]}", *ratios, *tail])
    first, ceilings = record["rows"][0], record["ceilings"]
    product, copy = 2 * ceilings["macs_per_second"] / 1e9, ceilings["bytes_per_second"] / 1e9
    case = f"Batch {first['batch']}, {first['dtype']}, {record['threads']} threads"
    origin = f"{case}; matrix product {product:.0f} GFLOP/s, copy {copy:.0f} GB/s; {_machine(record)}. Command:"
    return f"{table(rows)}\n{origin}\n\n    {record['command']}\n"


def loader_table(record: dict[str, Any]) -> str:
    """Pictures per second of processor time of `loader.py`, how they compare with torchvision's, and those by the clock."""
    rows = [["loader", "px", "cores", "pictures/s per core", "spread", "x torchvision", "spread", "by the clock"]]
    for row in record["rows"]:
        rates = f"{row['pictures_per_second_per_core']:.0f}", f"{min(row['rounds']):.0f} to {max(row['rounds']):.0f}"
        ratios = f"{row['ratio']:.2f}", f"{row['ratio_range'][0]:.2f} to {row['ratio_range'][1]:.2f}"
        rows.append([row["loader"], str(row["side"]), str(row["cores"]), *rates, *ratios, f"{row['pictures_per_second_by_clock']:.0f}"])
    files = f"{record['pictures']:,} pictures of {record['data']}, the median file {record['median_file_bytes'] / 1000:.0f} kB"
    rounds = len(record["rows"][0]["rounds"])
    command = f"    python benchmarks/loader.py {record['data']} --rounds {rounds}"
    return f"{table(rows)}\n{files}; batches of {record['batch']}, {rounds} rounds; {_machine(record)}. Command:\n\n{command}\n"


def startup_table(record: dict[str, Any]) -> str:
    """The waiting times of `startup.py`."""
    rows = [["process", "seconds", "smallest to largest"]]
    for row in record["rows"]:
        rows.append([row["what"], f"{row['seconds']:.2f}", " to ".join(f"{second:.2f}" for second in row["seconds_range"])])
    return table(rows) + f"\n{_machine(record)}. Command: `python benchmarks/startup.py`\n"


def _machine(record: dict[str, Any]) -> str:
    return f"{record['hardware']}, torch {record['versions']['torch']}, {record['date']}"


def _origin(record: dict[str, Any]) -> str:
    """Where figures of trainings come from, with their commands."""
    held_out = record["runs"][0]["held_out"]
    text = f"{held_out['pictures']} pictures held out ({held_out['split']}); {_machine(record)}; one run each. Commands:\n\n"
    return text + "".join(f"    {run['command']}\n" for run in record["runs"])


def written(record: dict[str, Any]) -> str:
    """The table of any result file."""
    tables = {
        "foveate demo": demo_table,
        "foveate bench": speed_table,
        "benchmarks/dense_cost.py": step_table,
        "benchmarks/loader.py": loader_table,
        "benchmarks/startup.py": startup_table,
        "benchmarks/studies.py": study_table,
    }
    if record["method"] in tables:
        return tables[record["method"]](record)
    return dense_table(record) if "head" in record["runs"][0] else from_scratch_table(record)


def filled(page: str) -> str:
    """The page with every marked place made anew from the file that it names: `from FILE`, or `rows from FILE` for a study's rows."""
    parts = re.split(r"<!-- (from|rows from) (\S+) -->\n", page)
    if page.count(END) != len(parts) // 3:
        raise ValueError(f"found {page.count(END)} ends of marked places, expected {len(parts) // 3}: one of the markers is mistyped")
    text = parts[0]
    for what, name, rest in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        record = json.loads((RESULTS / name).read_text())
        made = written(record) if what == "from" else f"{study_rows(record)}\n{study_origin(record)}\n"
        text += f"<!-- {what} {name} -->\n\n{made}\n{rest[rest.index(END) :]}"
    return text


def main() -> None:
    for name in PAGES:
        page = ROOT / name
        page.write_text(filled(page.read_text()))


if __name__ == "__main__":
    main()
