"""Run a suite of experiments with several seeds, test the differences, write a report.

    python -m drin_jax.experiments SUITE --config=configs/X.py --workdir=DIR [--seeds=5]
        [--rows=a,b] [--against=ROW] [--published=FILE.json] [--config.field=value …]

Started again in the same workdir it trains only what is missing; --seeds may grow. Writes
WORKDIR/report.html and report.md. Exit codes: 0 done, 1 a row failed or a mistake told in one line,
2 bad flags, 143 stopped by SIGTERM. Suites:

"""

import dataclasses
import shlex
import sys
from pathlib import Path

from absl import flags

from data_pipeline.schema import UserError
from drin_jax import command
from drin_jax.experiments import suites

flags.DEFINE_integer("seeds", 5, "Seeds of every row.", lower_bound=1)
flags.DEFINE_integer("first_seed", 0, "The first of them; the others follow.", lower_bound=0)
flags.DEFINE_list("rows", [], "Rows to run; by default all.")
flags.DEFINE_string("against", "", "Row that the others are tested against.")
flags.DEFINE_string("published", None, "File of published numbers; form: experiments/results.py.")
flags.DEFINE_bool("report_only", False, "Train nothing: make the report from what is there.")


def main(name: str) -> None:
    """Run the suite that the flags describe, then report."""
    suite, values = suites.get(name), command.FLAGS
    from drin_jax.experiments import results

    published = results.read_published(Path(values.published)) if values.published else None
    failed: list[str] = []
    if values.report_only:
        if values.workdir is None:
            raise UserError("--workdir is missing; see --help")
        workdir = Path(values.workdir)
    else:
        config, workdir = command.config_and_workdir()
        from drin_jax.experiments.runner import Runner  # jax loads only for work

        failed = Runner(
            suite,
            config,
            workdir,
            seeds=range(values.first_seed, values.first_seed + values.seeds),
            rows=values.rows,
            against=values.against,
            published=published,
            command=shlex.join(["python", "-m", "drin_jax.experiments", *sys.argv[1:]]),
        ).run()
    told = f"{len(failed)} row(s) failed: {', '.join(failed)}; see {workdir}/runs/ROW/failure.txt"
    try:
        from drin_jax.experiments import suite_report

        found = results.load(workdir)
        if found.suite != name:
            raise UserError(f"{workdir} holds the suite {found.suite}, not {name}")
        if published is not None:
            found = dataclasses.replace(found, published=published)
        print("report:", *suite_report.write(found, workdir))
    except (ModuleNotFoundError, UserError) as error:
        why = str(error)
        if isinstance(error, ModuleNotFoundError):
            why = (
                f"the report needs {error.name}; the runs are kept: pip install {error.name}, then "
                "the same command with --report_only"
            )
        raise UserError(f"{told}; {why}" if failed else why) from None
    if failed:
        raise UserError(told)


__doc__ = (__doc__ or "") + suites.described()

if __name__ == "__main__":
    command.run(main, positional=("SUITE",))
