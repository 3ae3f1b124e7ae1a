"""Link mentions from the command line."""

import os

# Between products OpenBLAS's threads wait for the next one, on the cores that the encoders need.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
