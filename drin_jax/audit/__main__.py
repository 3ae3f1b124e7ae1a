"""What a data set and its graphs are worth before anything is trained on them.

    python -m drin_jax.audit --config=configs/sample.py --workdir=runs/audit

Prints a line a finding and writes them all to WORKDIR/audit.json: size and text statistics (the
paper's Table 1), overlap between splits, retrieval recall, missing text and pictures, duplicate
candidates, and the noise floor: what a model scores when every feature is noise.
"""

from data_pipeline.files import write_json
from drin_jax import command
from drin_jax.config import check


def main() -> None:
    """Audit the config's data and write WORKDIR/audit.json."""
    config, workdir = command.config_and_workdir()
    from drin_jax.audit.findings import data_findings, noise_floor
    from drin_jax.extract.preparation import prepare
    from drin_jax.workdir import claim

    check(config)
    claim(workdir, config)
    store = prepare(config, workdir)
    findings = [*data_findings(config, store), noise_floor(store, config)]
    for finding in findings:
        print(finding["message"])
    path = workdir / "audit.json"
    write_json(path, findings)
    print(f"audit: {path}")


if __name__ == "__main__":
    command.run(main)
