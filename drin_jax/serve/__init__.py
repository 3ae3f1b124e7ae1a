"""The linker as a service."""

import os

# Between products OpenBLAS's threads wait for the next one, on the cores that the encoders need.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
