"""One table of several runs: `python -m drin_jax.report WORKDIR [WORKDIR ...]`."""

import sys

from drin_jax.evaluation.report import main

if __name__ == "__main__":
    sys.exit(main())
