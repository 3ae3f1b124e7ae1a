"""Prepare features, train, evaluate, report: one command.

    python -m drin_jax.main --config=configs/sample.py --workdir=runs/sample [--config.field=value]

Started again in the same workdir it goes on exactly where it was. Writes under the workdir:
`report.json` and `report.md`, `metrics.jsonl`, `tensorboard/`, `checkpoints/`, `config.json`, and
the feature store unless `data.store` puts it elsewhere. Exit codes: 0 done, 1 a mistake told in one
line, 2 bad flags, 143 stopped by SIGTERM after saving.

Several processes, on one machine or many, train together where each is started with the same flags
and its own number, which the scripts of launch/ do:

    … --coordinator=HOST:PORT --processes=N --process=I
"""

from drin_jax import command
from drin_jax.config import flat
from drin_jax.parallel import multihost


def main() -> None:
    """Run the experiment that the flags describe."""
    config, workdir = command.config_and_workdir()
    with multihost.joined(multihost.rank(), flat(config)):
        from drin_jax.run import execute  # jax, flax and orbax load only when there is work

        execute(config, workdir)


if __name__ == "__main__":
    multihost.define_flags()
    command.run(main)
