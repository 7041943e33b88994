"""Run `foveate demo` and keep its table: `python benchmarks/demo.py FOLDER_FOR_THE_RUNS`."""

import sys

from record import foveate, head, write


def main() -> None:
    rows = foveate("demo", "--out", sys.argv[1])
    write("demo", {**head("foveate demo"), "rows": [{name: value for name, value in row.items() if name != "run"} for row in rows]})


if __name__ == "__main__":
    main()
