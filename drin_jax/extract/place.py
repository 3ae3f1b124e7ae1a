"""The flag that two commands share: where shards made elsewhere lie."""

from absl import flags

flags.DEFINE_string(
    "shards", None, "Folder (or gs://…) of jobs and shards of drin_jax.extract.beam."
)


def place() -> str | None:
    """The flag's value."""
    value: str | None = flags.FLAGS.shards
    return value
