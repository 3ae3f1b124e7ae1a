"""Run by frozen_test.py in a process of its own: the vectors that this process's devices make.

python -m tests.support.encoding_on_devices ENCODERS OUT.npz
"""

import sys
from pathlib import Path

import jax
import numpy as np

from tests.encoders.frozen_test import encode

if __name__ == "__main__":
    root, out = Path(sys.argv[1]), sys.argv[2]
    assert len(jax.local_devices()) == 2
    ways = encode({name: root / name for name in ("text", "clip", "resnet")})
    np.savez(out, **{way: run(25) for way, run in ways.items()})
