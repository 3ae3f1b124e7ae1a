"""Explain a finished run: one mention's ranking and edges, or the kinds of its errors.

    python -m drin_jax.explain --workdir=DIR --mention=ID [--split=test] [--against=DIR2] \
        [--candidates=5] [--out=FILE.png]
    python -m drin_jax.explain --workdir=DIR --errors=N [--split=test] [--near=0.02] [--json=FILE]
    python -m drin_jax.explain --workdir=DIR --list=N [--split=test]

DIR is the workdir of a finished `python -m drin_jax.main`. --mention also takes `random` and
`random-wrong`. The picture goes to WORKDIR/explain/ID.png unless --out says where.
"""

import re
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from data_pipeline import output
from data_pipeline.schema import UserError
from drin_jax import command

if TYPE_CHECKING:  # jax loads only when there is work
    from drin_jax.workdir import FinishedRun

FLAGS = flags.FLAGS
FORMATS = (".png", ".pdf", ".svg")
# What is done, and the flags that go with that alone.
MODES = {"mention": ("against", "out", "candidates"), "errors": ("json", "near"), "list": ()}


def check(values: Mapping[str, Any], given: Collection[str]) -> str:
    """Which of MODES is asked for; UserError for flags that cannot be meant.

    Args:
        values: flag -> value.
        given: the flags that were on the command line.
    """
    if "config" in given:
        raise UserError("--config is not taken here; a finished run brings its own")
    if not values["workdir"]:
        raise UserError("--workdir is missing; give the folder of a finished drin_jax.main")
    modes = [name for name in MODES if name in given]
    if len(modes) != 1:
        raise UserError("give exactly one of --mention=ID, --errors=N and --list=N; see --help")
    if values["out"] and Path(values["out"]).suffix.lower() not in FORMATS:
        raise UserError(f"--out {values['out']}: ends in none of {', '.join(FORMATS)}")
    for mode, own in MODES.items():
        for name in own:
            if name in given and mode not in modes:
                raise UserError(f"--{name} goes with --{mode} only")
    return modes[0]


def main() -> None:
    """Do what the flags ask for."""
    values = FLAGS.flag_values_dict()
    mode = check(values, [name for name in values if FLAGS[name].present])
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    from drin_jax import workdir
    from drin_jax.explain import outcomes, terminal

    run = workdir.open_run(Path(FLAGS.workdir))
    run.store.check_split(FLAGS.split)
    if mode == "mention":
        against = workdir.open_run(Path(FLAGS.against)) if FLAGS.against else None
        out = Path(FLAGS.out) if FLAGS.out else None
        show_mention(run, FLAGS.split, FLAGS.mention, FLAGS.candidates, against, out)
    elif mode == "errors":
        file = Path(FLAGS.json) if FLAGS.json else None
        show_errors(run, FLAGS.split, FLAGS.errors, FLAGS.near, file)
    else:
        found = outcomes.outcome(run, FLAGS.split)
        terminal.show_list(output.console(), run, found, FLAGS.list)


def show_mention(
    run: "FinishedRun",
    split: str,
    wanted: str,
    candidates: int,
    against: "FinishedRun | None",
    out: Path | None,
) -> None:
    """One mention on the terminal and as a picture."""
    import numpy as np

    from drin_jax.explain import cases, outcomes, sources, terminal

    [case] = cases.ranked(
        run, split, [outcomes.choose(run, split, wanted, np.random.default_rng())]
    )
    other = outcomes.same_mention(against, run, case) if against else None
    found = sources.read(run.config)
    try:
        from drin_jax.explain import figure
    except ModuleNotFoundError as error:
        raise UserError(
            f"the picture needs {error.name}; run pip install -r requirements.txt"
        ) from None
    name = re.sub(r"[^\w.-]+", "_", case.id)
    path = out or run.workdir / "explain" / f"{name}.png"
    unseen = figure.draw(path, case, found, candidates, other)
    terminal.show_case(output.console(), case, found, candidates, other)
    if unseen:
        print(f"no installed font shows {unseen}; install one for that script (such as Noto)")
    print(f"written: {path}")


def show_errors(
    run: "FinishedRun", split: str, examples: int, near: float, file: Path | None
) -> None:
    """The kinds of errors on the terminal, and every wrong mention in a JSON file."""
    from data_pipeline.files import write_json
    from drin_jax.explain import outcomes, sources, terminal

    told = outcomes.summary(run, outcomes.outcome(run, split), sources.read(run.config), near)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, told)
    terminal.show_errors(output.console(), told, examples)
    if file:
        print(f"all {told['wrong']} wrong mentions: {file}")


if __name__ == "__main__":
    flags.DEFINE_string("mention", None, "A mention's id, or random, or random-wrong.")
    flags.DEFINE_string("split", "test", "Split of the mentions: train, valid or test.")
    flags.DEFINE_string("against", None, "Workdir of another finished run on the same data.")
    flags.DEFINE_string("out", None, "The picture: FILE.png, .pdf or .svg.")
    flags.DEFINE_integer("candidates", 5, "Candidates shown, beside the gold.", 1)
    flags.DEFINE_integer("list", None, "List so many mentions with the rank of their gold.", 1)
    flags.DEFINE_integer("errors", None, "Count the kinds of errors; so many examples of each.", 0)
    flags.DEFINE_float("near", 0.02, "Nearly tied: the gold's score at most this below the best.")
    flags.register_validator("near", lambda near: near >= 0, "it must be at least 0")  # nor NaN
    flags.DEFINE_string("json", None, "With --errors: a file for every wrong mention.")
    command.run(main)
