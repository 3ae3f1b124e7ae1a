"""Hold our models against the authors' arrays: `python -m drin_jax.parity FILE.npz ...`."""

from data_pipeline import exits
from drin_jax import command


def main() -> int:
    """Compare the files of the command line."""
    command.keep_compiled()
    from drin_jax.parity import comparison

    return comparison.main()


if __name__ == "__main__":
    exits.run(main)
