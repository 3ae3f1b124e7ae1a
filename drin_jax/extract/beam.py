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

import contextlib
import json
import sys
from collections.abc import Iterator

import apache_beam
import numpy as np
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils import shared
from ml_collections import ConfigDict

from data_pipeline.schema import UserError
from drin_jax import command
from drin_jax.extract.__main__ import SHARDS
from drin_jax.extract.encoding import Encoders
from drin_jax.extract.features import STAMP, shard_file
from drin_jax.extract.items import items_from_plain, plain_items
from drin_jax.extract.preparation import Preparation, plan

IN_PROCESS = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


class EncodeShard(apache_beam.DoFn):
    """Job file -> shard file: reads a job, runs the encoders, writes the shard whole."""

    def __init__(self, config: ConfigDict, place: str):
        self.config, self.place = config, place
        self._shared = shared.Shared()  # one copy of the weights a process, however many threads

    def setup(self) -> None:
        """Loads the encoders, once a process."""
        config = self.config
        self.encoders = self._shared.acquire(lambda: Encoders(config))

    def process(self, job: str) -> Iterator[str]:
        """Encodes the shard of a job; yields the name of its file."""
        with FileSystems.open(job) as file:
            content = json.loads(file.read())
        kind = content["kind"]
        items = items_from_plain(kind, content["items"])
        (arrays,) = self.encoders.encode(kind, [items], len(items))
        target = FileSystems.join(self.place, shard_file(content["name"], content["shard"]))
        draft = target + ".partial"
        arrays[STAMP] = np.array(self.encoders.stamp(kind, items))
        with FileSystems.create(draft) as file:
            np.savez(file, allow_pickle=False, **arrays)
        FileSystems.rename([draft], [target])
        yield target


def write_jobs(plan: Preparation, place: str) -> list[str]:
    """Writes a job file for each shard that is not made yet; returns their paths."""
    with contextlib.suppress(OSError):  # it is there
        FileSystems.mkdirs(place)
    jobs = []
    for stage in plan.stages():
        for shard in range(stage.shards):
            name = shard_file(stage.name, shard)
            if FileSystems.exists(FileSystems.join(place, name)):
                continue
            job = FileSystems.join(place, name.replace(".npz", ".json"))
            rows = plain_items(stage.items(stage.shard(shard)))
            job_of = {"kind": stage.kind, "name": stage.name, "shard": shard, "items": rows}
            with FileSystems.create(job) as file:
                file.write(json.dumps(job_of).encode())
            jobs.append(job)
    return jobs


def main() -> None:
    """Run the pipeline that the flags describe."""
    config, _ = command.config_and_workdir()
    place = SHARDS.value
    if not place:
        raise UserError("--shards is missing; name the place for jobs and shards")
    jobs = write_jobs(plan(config), place)
    if jobs:
        options = PipelineOptions(BEAM_FLAGS or [f"--runner={IN_PROCESS}"])
        with apache_beam.Pipeline(options=options) as pipeline:
            (
                pipeline
                | "jobs" >> apache_beam.Create(jobs)
                | "spread" >> apache_beam.Reshuffle()
                | "encode" >> apache_beam.ParDo(EncodeShard(config, place))
            )
    print(f"{len(jobs)} shards made in {place}")
    print(f"next: python -m drin_jax.extract --config=… --workdir=… --shards={place}")


BEAM_FLAGS: list[str] = []

if __name__ == "__main__":
    if "--" in sys.argv:
        at = sys.argv.index("--")
        BEAM_FLAGS[:], sys.argv[at:] = sys.argv[at + 1 :], []
    command.run(main)
