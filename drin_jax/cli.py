"""The console script: `drin-jax COMMAND …` is `python -m MODULE …`."""

import runpy
import sys

COMMANDS = {
    "train": ("drin_jax.main", "prepare features, train, evaluate and report"),
    "extract": ("drin_jax.extract", "make the features of a config, and nothing else"),
    "beam": ("drin_jax.extract.beam", "the same on many machines, by Apache Beam"),
    "link": ("drin_jax.link", "link mentions of your own text and pictures"),
    "serve": ("drin_jax.serve", "the same behind an HTTP address, with a page"),
    "kb": ("drin_jax.kb", "build, search and add to a knowledge base"),
    "recall": ("drin_jax.recall", "how many golds each first stage finds"),
    "audit": ("drin_jax.audit", "what a data set and its graphs are worth"),
    "experiments": ("drin_jax.experiments", "a suite with several seeds, tested and reported"),
    "explain": ("drin_jax.explain", "why a finished run ranks as it does, and how it errs"),
    "export": ("drin_jax.export", "a finished run's scorer as a folder without model code"),
    "report": ("drin_jax.report", "one table of several finished runs"),
    "parity": ("drin_jax.parity", "hold the models against reference arrays"),
    "validate": ("data_pipeline.validate", "look a data set over before it is used"),
    "sample": ("data_pipeline.sample", "make the sample world"),
    "tfds": ("data_pipeline.tfds_builders", "build a data set for TensorFlow Datasets"),
}


def described() -> str:
    """What `drin-jax --help` prints."""
    lines = [f"  {name:12} {what}" for name, (_, what) in COMMANDS.items()]
    usage = "usage: drin-jax COMMAND [--config=NAME|FILE] [--workdir=DIR] [--config.field=value …]"
    return "\n".join([usage, "", *lines, "", "drin-jax COMMAND --help tells a command's flags."])


def main() -> None:
    """Run the command that is named, in this process, as its module."""
    from data_pipeline import exits

    exits.run(_run)


def _run() -> int:
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "-help", "--help", "help"):
        print(described())
    elif name == "--version":
        from drin_jax import __version__

        print(__version__)
    elif name in COMMANDS:
        del sys.argv[1]
        runpy.run_module(COMMANDS[name][0], run_name="__main__", alter_sys=True)
    else:
        known = ", ".join(COMMANDS)
        print(f"error: no command is named {name!r}; there are {known}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    main()
