"""The data side: readers, knowledge bases, stores, candidates, relations. Knows no devices."""

import os
import signal
import sys

# Until a command of ours takes over, its imports behind it, Ctrl-C just ends it.
_OURS = bool(sys.argv) and os.path.basename(sys.argv[0]) in ("-m", "drin-jax")
if _OURS and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
