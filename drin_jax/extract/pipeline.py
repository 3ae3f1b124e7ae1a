"""The pipeline of `drin_jax.extract.beam`, which needs Apache Beam (extra "beam")."""

import contextlib
import json
import operator
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import apache_beam
import numpy as np
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils import shared
from ml_collections import ConfigDict

from drin_jax.extract.encoding import Encoders
from drin_jax.extract.features import STAMP, shard_file
from drin_jax.extract.items import items_from_plain, plain_items
from drin_jax.extract.preparation import Preparation

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
        arrays[STAMP] = np.array(self.encoders.stamp(kind, items))
        write_file(target, lambda file: np.savez(file, allow_pickle=False, **arrays))
        yield target


def write_file(target: str, put: Callable[[Any], None]) -> None:
    """A file that `put` writes, whole or not there. Others may write the same one at once, as a
    runner may start a late shard again beside the first: each has a draft of its own."""
    draft = f"{target}.{uuid.uuid4().hex}.partial"
    with FileSystems.create(draft) as file:
        put(file)
    FileSystems.rename([draft], [target])


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
            content = json.dumps(job_of).encode()
            write_file(job, operator.methodcaller("write", content))
            jobs.append(job)
    return jobs


def encode(config: ConfigDict, jobs: Sequence[str], place: str, flags: Sequence[str]) -> None:
    """Make the shards of these jobs, by a runner that Beam's flags name, or in this process."""
    options = PipelineOptions([*flags] or [f"--runner={IN_PROCESS}"])
    with apache_beam.Pipeline(options=options) as pipeline:
        (
            pipeline
            | "jobs" >> apache_beam.Create(jobs)
            | "spread" >> apache_beam.Reshuffle()
            | "encode" >> apache_beam.ParDo(EncodeShard(config, place))
        )
