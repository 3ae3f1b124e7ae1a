"""The launchers: readable by what reads them, and starting nothing but the one command."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.commands import ROOT

LAUNCH = ROOT / "launch"
SCRIPTS = sorted(path for path in LAUNCH.iterdir() if path.suffix in (".sh", ".sbatch"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_whole_and_starts_the_command(path: Path) -> None:
    checked = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    text = path.read_text()
    assert text.startswith("#!/usr/bin/env bash\n# ")
    assert "-m drin_jax.main" in text or "launch/slurm.sbatch" in text
    assert path.suffix != ".sh" or path.stat().st_mode & 0o111


def test_kubernetes_gives_each_pod_its_place() -> None:
    jobset = yaml.safe_load((LAUNCH / "kubernetes.yaml").read_text())
    (job,) = jobset["spec"]["replicatedJobs"]
    pods = job["template"]["spec"]
    (container,) = pods["template"]["spec"]["containers"]
    assert container["command"] == ["python", "-m", "drin_jax.main"]
    environment = {entry["name"]: entry for entry in container["env"]}
    assert pods["completionMode"] == "Indexed"
    processes = int(environment["DRIN_PROCESSES"]["value"])
    assert pods["parallelism"] == pods["completions"] == processes
    index = environment["DRIN_PROCESS"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert "job-completion-index" in index
    names = jobset["metadata"]["name"], job["name"], jobset["spec"]["network"]["subdomain"]
    host = environment["DRIN_COORDINATOR"]["value"].split(":")[0]
    assert host == "{}-{}-0-0.{}".format(*names)


@pytest.mark.parametrize("name", ["local.sh", "multiprocess.sh"])
def test_the_folder_is_the_callers(name: str, tmp_path: Path) -> None:
    """Paths in flags are those of where it was called; here by a stand-in for Python."""
    python = tmp_path / "python"
    python.write_text('#!/usr/bin/env bash\necho "in $PWD: $*"\n')
    python.chmod(0o755)
    (tmp_path / "mine").mkdir()
    count = ["1"] if name == "multiprocess.sh" else []
    result = subprocess.run(
        [str(LAUNCH / name), *count, "--workdir=runs/a"],
        cwd=tmp_path / "mine",
        env=os.environ | {"PYTHON": str(python), "PORT": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert f"in {tmp_path / 'mine'}: -m drin_jax.main --workdir=runs/a" in result.stdout


@pytest.mark.parametrize("arguments", [[], ["0"], ["--config=x"]], ids=str)
def test_multiprocess_wants_a_number(arguments: list[str]) -> None:
    script = str(LAUNCH / "multiprocess.sh")
    result = subprocess.run([script, *arguments], capture_output=True, text=True)
    assert result.returncode == 2
    assert "usage: " in result.stderr
