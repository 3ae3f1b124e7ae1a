"""Hold our models against the authors' arrays: `python -m drin_jax.parity FILE.npz ...`."""

import sys

from drin_jax import command

if __name__ == "__main__":
    command.keep_compiled()
    from drin_jax.parity.comparison import main

    sys.exit(main())
