"""Try everything that must not lose work or give wrong results: about an hour, `make torture`.

Kills at random moments, every write failing once, disks that are full, two commands at once in one
folder, and random files, flags and pictures; each is held against an undisturbed twin. Exit code 1
where anything went wrong.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.support import compilation

BEGIN, END = "<!-- campaign -->", "<!-- end -->"


def main() -> int:
    """Run the campaign that the flags describe."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--failures", type=int, default=150, help="most of one command")
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--document", type=Path, help="a file whose summary is replaced")
    given = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ["XLA_FLAGS"] = compilation.flags()
    with tempfile.TemporaryDirectory(prefix="drin_jax_programs_") as programs:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = programs
        from tests.torture import campaign  # jax, with these settings

        lines, wrong = campaign.run(given.seed, given.kills, given.failures, given.cases)
    command = (
        f"python -m tests.torture --seed={given.seed} --kills={given.kills} "
        f"--failures={given.failures} --cases={given.cases}"
    )
    text = "\n".join([f"`{command}`: {len(wrong)} wrong.", "", *lines])
    print(text)
    for what in wrong:
        print(f"\nWRONG: {what}", file=sys.stderr)
    if given.document:
        before, _, rest = given.document.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        given.document.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
