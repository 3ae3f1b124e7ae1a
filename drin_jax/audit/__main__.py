"""What a data set and its graphs are worth before anything is trained on them.

python -m drin_jax.audit --config=configs/sample.py --workdir=runs/audit
"""

from drin_jax import command
from drin_jax.audit.findings import main

if __name__ == "__main__":
    command.run(main)
