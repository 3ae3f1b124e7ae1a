"""drin-jax serve, as its operator has it: a line when it is ready, one for a mistake, an end."""

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the service is for extra serve")
pytest.importorskip("httpx", reason="its tests are for extra dev")

import httpx

from tests.linking.fake_linker import SLOW
from tests.linking.running_server import parsed, request
from tests.support.commands import assert_one_clear_line, run
from tests.support.paths import ROOT

# The command with a linker that needs no model.
FAKE = """
import runpy
from drin_jax.linking.linker import Linker
from tests.linking.fake_linker import FakeLinker
Linker.from_pretrained = lambda place, kb: FakeLinker()
runpy.run_module("drin_jax.serve", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_life_of_a_service(tmp_path: Path, number: signal.Signals) -> None:
    token = tmp_path / "token"
    token.write_text("sesame\n")
    flags = ["--model=any", "--port=0", f"--token-file={token}"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", FAKE, *flags], cwd=ROOT, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            ready = process.stdout.readline() if process.stdout else ""
            assert ready.startswith("http://127.0.0.1:"), process.communicate()
            assert ready.endswith(" links to 201 entities of fake, model fake, writable\n")
            url = httpx.URL(ready.split()[0])
            assert httpx.get(f"{url}/kb").json()["writable"]
            body = json.dumps({"text": SLOW, "mention": SLOW}).encode()
            with socket.create_connection((url.host, url.port or 0), timeout=60) as caller:
                caller.sendall(request("/link", body))
                while "drin_jax_batch_size_count 1.0" not in httpx.get(f"{url}/metrics").text:
                    pass
                process.send_signal(number)
                answer = b"".join(iter(lambda: caller.recv(65536), b""))
            assert parsed(answer)[0] == 200
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (0, "", "")


@pytest.fixture(scope="module")
def taken() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0))
    return listener


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ((), "--model is missing"),
        (("--model=sample", "--port={taken}"), "cannot be listened on: Address already in use"),
        (("--model=sample", "--port=99999"), "port is 99999; it must be 0 to 65535"),
        (("--model=sample", "--host=no.such.host.invalid"), "cannot be listened on"),
        (("--model=sample", "--token-file={folder}/none"), "cannot be read: "),
        (("--model=sample", "--token-file={folder}"), "cannot be read: "),
        (("--model=sample", "--token-file={folder}/empty"), "has to hold one word"),
        (("--model=sample", "--token-file={folder}/words"), "has to hold one word"),
        (("--model=sample", "--token-file={folder}/bytes"), "cannot be read: "),
        (("--model=sample", "--batch=0"), "batch is 0; it must be at least 1"),
        (("--model=sample", "--queue=8"), "queue is 8; it must be at least 256"),
        (("--model=sample", "--max-batch=5000"), "it must be at least 5000"),
        (("--model=sample", "--wait-ms=nan"), "wait is nan"),
        (("--model={folder}/none", "--port=0"), "there is no such folder"),
    ],
)
def test_mistakes_are_told_in_one_line(
    taken: socket.socket, tmp_path: Path, flags: tuple[str, ...], told: str
) -> None:
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "words").write_text("two words")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    places = {"taken": taken.getsockname()[1], "folder": tmp_path}
    result = run("drin_jax.serve", *(flag.format(**places) for flag in flags))
    assert_one_clear_line(result, told)


def test_a_missing_extra_is_told() -> None:
    program = (
        "import runpy, sys; sys.modules['fastapi'] = None; sys.argv = ['serve', '--model=sample']; "
        "runpy.run_module('drin_jax.serve', run_name='__main__', alter_sys=True)"
    )
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert_one_clear_line(result, "fastapi is missing; pip install 'drin_jax[serve]'")


def test_what_launch_starts_is_there() -> None:
    """The Dockerfile and the manifests name this command, flags that it has, and each other."""
    yaml = pytest.importorskip("yaml", reason="it is for extra dev")
    image = (ROOT / "launch/Dockerfile").read_text()
    for line in re.findall(r"(?m)^COPY (.+) \S+$", image):
        assert all((ROOT / name).exists() for name in line.split())
    entry = json.loads(re.findall(r"(?m)^ENTRYPOINT (.+)$", image)[0])
    entry += json.loads(re.findall(r"(?m)^CMD (.+)$", image)[0])
    manifest = (ROOT / "launch/serve_kubernetes.yaml").read_text()
    deployment, service = yaml.safe_load_all(manifest)
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert service["spec"]["selector"] == pod["metadata"]["labels"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}
    known = run("drin_jax.serve", "--help").stdout
    for command in (entry, container["command"] + container["args"]):
        assert command[:2] == ["drin-jax", "serve"]
        for flag in command[2:]:
            assert f"  {flag.split('=')[0]}" in known, flag
