"""One table of several runs: `python -m drin_jax.report WORKDIR [WORKDIR ...]`."""

import argparse
from pathlib import Path
from typing import Any

from data_pipeline import exits
from data_pipeline.files import read_json
from data_pipeline.schema import UserError
from drin_jax.evaluation.report import compare

AGAIN = "start the run again, which writes it anew"


def main(argv: list[str] | None = None) -> None:
    """Print the table of the runs in these workdirs. UserError."""
    parser = argparse.ArgumentParser("python -m drin_jax.report", description=__doc__)
    parser.add_argument("workdirs", nargs="+", type=Path, metavar="WORKDIR")
    parser.add_argument("--split", default="test", choices=("valid", "test"))
    parser.add_argument("--subsets", nargs="+", default=["all", "clean"], help="as in report.md")
    args = parser.parse_args(argv)
    print(compare([read(w) for w in args.workdirs], args.split, args.subsets))


def read(workdir: Path) -> dict[str, Any]:
    """A finished run's report. UserError where there is none."""
    path = workdir / "report.json"
    report = read_json(path, AGAIN, missing="no such file; the run is not finished")
    if "splits" not in report:
        raise UserError(f"{path}: is no report; {AGAIN}")
    return report


if __name__ == "__main__":
    exits.run(main)
