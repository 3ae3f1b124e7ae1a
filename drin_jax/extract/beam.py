"""The same extraction on many machines: an Apache Beam pipeline over the same shards.

    python -m drin_jax.extract.beam --config=… --workdir=DIR --shards=PLACE [-- BEAM FLAGS]
    python -m drin_jax.extract      --config=… --workdir=DIR --shards=PLACE

The first command reads the corpus, writes one job file a shard to PLACE and runs the pipeline,
whose workers write one `.npz` a shard beside it; what is there already is not made again. The
second, on one machine that sees PLACE as a folder, takes the shards in and makes the store; it
refuses shards that were made from other data, settings or weights. Flags after `--` are Beam's own
(`--runner=DataflowRunner --project=…`); without them the pipeline runs in this process.

Workers need this package with its extra "beam", the pictures under the same paths (a shared mount),
and the encoders by hub id or under the same paths. PLACE is anything that Beam's file systems open.
"""

import sys

from data_pipeline.schema import UserError
from drin_jax import command
from drin_jax.extract.__main__ import SHARDS
from drin_jax.extract.preparation import plan


def main() -> None:
    """Run the pipeline that the flags describe."""
    config, _ = command.config_and_workdir()
    place = SHARDS.value
    if not place:
        raise UserError("--shards is missing; name the place for jobs and shards")
    try:
        from drin_jax.extract import pipeline
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("apache_beam"):
            raise
        raise UserError("Apache Beam is missing; pip install 'drin_jax[beam]'") from None
    if jobs := pipeline.write_jobs(plan(config), place):
        pipeline.encode(config, jobs, place, BEAM_FLAGS)
    print(f"{len(jobs)} shards made in {place}")
    print(f"next: python -m drin_jax.extract --config=… --workdir=… --shards={place}")


BEAM_FLAGS: list[str] = []

if __name__ == "__main__":
    if "--" in sys.argv:
        at = sys.argv.index("--")
        BEAM_FLAGS[:], sys.argv[at:] = sys.argv[at + 1 :], []
    command.run(main)
