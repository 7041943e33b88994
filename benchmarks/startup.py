"""How long a user waits before anything happens: `python benchmarks/startup.py [--rounds 5]`.

Method: processes of their own, in turns, after one round that is not counted; wall time from start to end, medians with the smallest and
largest.
"""

import argparse
import subprocess
import sys
import time
from statistics import median

from record import head, write

COMMANDS = {
    "Python alone": ("-c", "pass"),
    "foveate --help": ("-c", "from foveate_command import main; main()", "--help"),
    "import timm": ("-c", "import timm"),
    "import timm, foveate": ("-c", "import timm, foveate"),
}


def seconds(arguments: tuple[str, ...]) -> float:
    """Wall time of one process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    timed = [{name: seconds(arguments) for name, arguments in COMMANDS.items()} for _ in range(rounds + 1)][1:]
    columns = {name: [one[name] for one in timed] for name in COMMANDS}
    rows = [
        {"what": name, "seconds": round(median(column), 3), "seconds_range": [round(min(column), 3), round(max(column), 3)]}
        for name, column in columns.items()
    ]
    write("startup", {**head("benchmarks/startup.py"), "rows": rows})


if __name__ == "__main__":
    main()
