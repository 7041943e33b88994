"""Keep the table of a demo that was run: `make demo`, then `python benchmarks/demo.py demo/table.json`."""

import json
import sys
from pathlib import Path

from record import head, write


def main() -> None:
    rows = json.loads(Path(sys.argv[1]).read_text())
    write("demo", {**head("foveate demo"), "rows": [{name: value for name, value in row.items() if name != "run"} for row in rows]})


if __name__ == "__main__":
    main()
