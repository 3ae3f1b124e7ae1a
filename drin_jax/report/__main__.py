"""One table of several runs: `python -m drin_jax.report WORKDIR [WORKDIR ...]`."""

import argparse
from pathlib import Path
from typing import Any

from data_pipeline import exits
from data_pipeline.files import load_json
from data_pipeline.schema import UserError
from drin_jax.evaluation.report import compare


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
    try:
        report = load_json(path)
        if not isinstance(report, dict) or "splits" not in report:
            raise ValueError("not a report")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; the run is not finished") from None
    except ValueError as error:
        raise UserError(f"{path}: unreadable ({error})") from None
    return report


if __name__ == "__main__":
    exits.run(main)
