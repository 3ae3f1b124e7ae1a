"""Hold our models against the authors' arrays: `python -m drin_jax.parity FILE.npz ...`."""

import sys

from drin_jax.parity.comparison import main

if __name__ == "__main__":
    sys.exit(main())
