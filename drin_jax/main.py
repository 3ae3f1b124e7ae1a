"""Prepare features, train, evaluate, report: one command.

    python -m drin_jax.main --config=configs/sample.py --workdir=runs/sample [--config.field=value]

Started again in the same workdir it goes on exactly where it was. Writes under the workdir:
`report.json` and `report.md`, `metrics.jsonl`, `tensorboard/`, `checkpoints/`, `config.json`, and
the feature store unless `data.store` puts it elsewhere. Exit codes: 0 done, 1 a mistake told in one
line, 2 bad flags, 143 stopped by SIGTERM after saving.
"""

from drin_jax import command


def main() -> None:
    """Run the experiment that the flags describe."""
    config, workdir = command.config_and_workdir()
    from drin_jax.run import execute  # jax, flax and orbax load only when there is work

    execute(config, workdir)


if __name__ == "__main__":
    command.run(main)
