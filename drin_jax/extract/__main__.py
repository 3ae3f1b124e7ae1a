"""Make the feature store of a config, and nothing else.

    python -m drin_jax.extract --config=configs/X.py --workdir=DIR [--shards=DIR] [--config.field=…]

Runs every encoder the config needs over everything unique. Killed at any moment and started again
it goes on where it was. The store is where `python -m drin_jax.main` with the same config and
workdir looks for it; pictures that were masked are listed in WORKDIR/masked_entity_pictures.tsv and
masked_mention_pictures.tsv.
"""

import json
from pathlib import Path

from absl import flags

from drin_jax import command
from drin_jax.evaluation.tables import Table

SHARDS = flags.DEFINE_string(
    "shards", None, "Folder (or gs://…) of jobs and shards of drin_jax.extract.beam."
)


def main() -> None:
    """Prepare the store that the flags describe, and say what is in it."""
    config, workdir = command.config_and_workdir()
    from data_pipeline.schema import UserError
    from drin_jax import models
    from drin_jax.extract import preparation  # jax and the encoders load only when there is work

    shards = Path(SHARDS.value) if SHARDS.value else None
    if shards is not None and not shards.is_dir():
        raise UserError(f"--shards {shards}: is not a folder")
    store = preparation.prepare(config, workdir, shards, models.needs(config.model.name, 1))
    print(preparation.describe(store))
    counts = store.report.get("counts", {}).items()
    Table("", ["counted", "number"], [[name, f"{count:,}"] for name, count in counts]).show()
    for key in ("text_encoder", "image_encoder", "clip_encoder"):
        if key in store.report:
            print(f"{key}: {json.dumps(store.report[key])}")
    print(f"store: {store.path}")


if __name__ == "__main__":
    command.run(main)
