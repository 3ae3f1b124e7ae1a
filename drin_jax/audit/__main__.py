"""What a data set is worth: `python -m drin_jax.audit`."""

from drin_jax import command
from drin_jax.audit.findings import main

if __name__ == "__main__":
    command.run(main)
