"""Export a finished run's scorer, or check an export.

    python -m drin_jax.export --workdir=RUN --out=DIR [--platforms=cpu,cuda,tpu] [--overwrite]
                              [--linker]
    python -m drin_jax.export --check=DIR

RUN is the workdir of a finished `python -m drin_jax.main`; DIR appears whole or not at all. --check
scores random batches with the exported program and with the model that its parameters and config
build, and exits with 1 where they differ by more than 1e-6. Loading one: `drin_jax.export`. With
--linker DIR links new text too: `Linker.from_pretrained(DIR)`.
"""

from pathlib import Path
from typing import Any

from absl import flags

from data_pipeline.schema import UserError
from drin_jax import command

FLAGS = flags.FLAGS


def main() -> int:
    """Do what the flags ask for."""
    if FLAGS["config"].present:
        raise UserError("--config is not taken here; a finished run brings its own")
    if FLAGS.check:
        if FLAGS.workdir or FLAGS.out or FLAGS.overwrite or FLAGS["platforms"].present:
            raise UserError("--check goes alone; export first, then check")
        return check(Path(FLAGS.check))
    for name, what in (("workdir", "a finished drin_jax.main"), ("out", "the export to write")):
        if not FLAGS[name].value:
            raise UserError(f"--{name} is missing; give the folder of {what}, or --check=DIR")
    write(Path(FLAGS.workdir), Path(FLAGS.out), FLAGS.platforms, FLAGS.overwrite, FLAGS.linker)
    return 0


def write(
    workdir: Path, out: Path, platforms: list[str], overwrite: bool, linker: bool = False
) -> None:
    """Write the export and say what it holds."""
    from drin_jax.export import artefact
    from drin_jax.training.setup import LEAK_WARNING
    from drin_jax.workdir import open_run

    artefact.check_platforms(platforms)
    artefact.check_out(out, overwrite)
    options: dict[str, Any] = {"platforms": platforms, "overwrite": overwrite, "linker": linker}
    run = open_run(workdir)
    content = artefact.write(run, out, **options)
    if content["gold_slot"]:
        print(LEAK_WARNING)
    if run.reordering:
        print("the scorer does without the reranker, which reads texts; --linker keeps it too")
    size = sum((out / name).stat().st_size for name in content["files"])
    print(f"{content['system']}, step {content['step']}, for {', '.join(content['platforms'])}")
    print(f"written: {out} ({size / 1e6:.1f} MB); compare with --check={out}")


def check(folder: Path) -> int:
    """Print the largest difference; 1 where it is above the limit."""
    from drin_jax.export import artefact

    difference, limit, count = artefact.check(folder)
    good = difference <= limit  # not NaN either
    print(
        f"largest difference {difference:.1e} over {count} scores of {folder}, allowed {limit:.0e}"
        f": {'equal' if good else 'DIFFERENT'}"
    )
    return 0 if good else 1


if __name__ == "__main__":
    flags.DEFINE_string("out", None, "Folder of the export; a new one.")
    flags.DEFINE_list("platforms", ["cpu", "cuda", "tpu"], "Platforms that the scorer can run on.")
    flags.DEFINE_bool("linker", False, "With it what Linker.from_pretrained reads.")
    flags.DEFINE_bool("overwrite", False, "Replace an older export in --out.")
    flags.DEFINE_string("check", None, "Compare this export with the model it was made of.")
    command.run(main)
