"""Downloads from a stand-in of the Hugging Face hub on the loopback."""

import errno
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from data_pipeline import hub
from data_pipeline.schema import UserError
from drin_jax.encoders import hf, pretrained
from drin_jax.encoders.bert import load_bert
from tests.encoders.bert_test import assert_same, golden, pickled, write_checkpoint
from tests.support.fixtures import refusal
from tests.support.hub_stand_in import StandIn
from tests.support.paths import ROOT

STEP = 1000  # bytes that the client takes at once, in these tests
BIG = bytes(range(256)) * 40
FILES = {"mentions.jsonl": b'{"id": 1}\n', "images/one.npy": BIG, "empty.txt": b""}
ID = "someone/world"


@pytest.fixture
def stand_in(tmp_path, monkeypatch) -> Iterator[StandIn]:
    """A running stand-in that this process takes for the hub."""
    server = StandIn({("datasets", ID): FILES})
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    constants = huggingface_hub.constants
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", STEP)
    yield server
    server.shutdown()
    server.server_close()


def same(root: Path, files: dict[str, bytes]) -> bool:
    return all((root / path).read_bytes() == content for path, content in files.items())


@pytest.mark.parametrize("source", [f"hub:{ID}", f"hub:{ID}@main"])
def test_a_data_set_is_downloaded_once(stand_in, tmp_path, capsys, source):
    root = tmp_path / "new" / "world"
    hub.fetch(source, root)
    assert same(root, FILES)
    first, last = capsys.readouterr().err.splitlines()
    assert first == f"downloading {source}: 3 files, 0.0 MB"
    assert last.startswith(f"downloading {source}: 0.0 MB/0.0 MB in ")
    asked = len(stand_in.requests)
    hub.fetch(source, root)
    assert len(stand_in.requests) == asked  # no network
    (root / "images/one.npy").write_bytes(BIG[:-1])
    (root / "empty.txt").unlink()
    hub.fetch(source, root)
    assert same(root, FILES)
    assert stand_in.ranges("mentions.jsonl") == [None]  # what is whole is kept


def test_another_data_set_or_a_users_file_is_not_overwritten(stand_in, tmp_path):
    hub.fetch(f"hub:{ID}", tmp_path / "root")
    told = refusal(lambda: hub.fetch("hub:other/one", tmp_path / "root"))
    assert f"holds hub:{ID}" in told
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/mentions.jsonl").write_text("my own")
    told = refusal(lambda: hub.fetch(f"hub:{ID}", tmp_path / "mine"))
    assert "mentions.jsonl is there already and differs" in told
    assert (tmp_path / "mine/mentions.jsonl").read_text() == "my own"


PARTS = ".cache/huggingface/download/**/*.incomplete"  # the client's files on their way
KILLED = f"""
import sys
from pathlib import Path
import huggingface_hub
from data_pipeline import hub
huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = {STEP}
hub.fetch(sys.argv[1], Path(sys.argv[2]))
"""


def test_a_killed_download_keeps_its_whole_files(stand_in, tmp_path):
    stand_in.silent["images/one.npy"] = 4 * STEP
    root = tmp_path / "root"
    environment = os.environ | {"HF_ENDPOINT": stand_in.address}
    command = [sys.executable, "-c", KILLED, f"hub:{ID}", str(root)]
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if (
                not stand_in.silent
                and any(root.glob(PARTS))
                and all((root / name).exists() for name in ("mentions.jsonl", "empty.txt"))
            ):
                break
            time.sleep(0.02)
        told = refusal(lambda: hub.fetch(f"hub:{ID}", root))
        process.send_signal(signal.SIGKILL)
    assert f"in use by process {process.pid} " in told
    hub.fetch(f"hub:{ID}", root)
    assert same(root, FILES)
    assert stand_in.ranges("mentions.jsonl") == [None]
    assert list(root.glob(PARTS)) == []


@pytest.mark.parametrize("file", ["images/one.npy", "mentions.jsonl"])
def test_a_damaged_file_is_refused_and_fetched_anew(stand_in, tmp_path, file):
    stand_in.damaged.add(file)
    told = refusal(lambda: hub.fetch(f"hub:{ID}", tmp_path))
    assert f"{file} arrived damaged" in told
    assert not (tmp_path / file).exists()
    stand_in.damaged.clear()
    hub.fetch(f"hub:{ID}", tmp_path)
    assert same(tmp_path, FILES)


@pytest.mark.parametrize(
    ("source", "status", "code", "told"),
    [
        ("hub:no/such", 401, "", "the Hugging Face hub knows nothing of this name"),
        ("hub:no/such", 404, "RepoNotFound", "the Hugging Face hub knows nothing of this name"),
        ("hub:no/such", 403, "GatedRepo", "gated on the hub; log in"),
        ("hub:no/such", 500, "", "the Hugging Face hub answered with 500"),
        (f"hub:{ID}@nonsense", 0, "", "no such revision"),
        ("hub:world", 0, "", "write hub:OWNER/NAME"),
        (f"hub:{ID}@", 0, "", "write hub:OWNER/NAME"),
        ("hub:a/b/c", 0, "", "write hub:OWNER/NAME"),
        ("elsewhere:a/b", 0, "", "write hub:OWNER/NAME"),
    ],
)
def test_unknown_sources_get_one_line(stand_in, tmp_path, source, status, code, told):
    if status:
        stand_in.refused["no/such"] = (status, code)
    line = refusal(lambda: hub.fetch(source, tmp_path))
    assert told in line
    assert source in line


def test_a_file_outside_the_folder_is_refused(stand_in, tmp_path):
    stand_in.repositories["datasets", ID] = {"../evil": b"x"}
    told = refusal(lambda: hub.fetch(f"hub:{ID}", tmp_path / "root"))
    assert "'../evil', which is refused" in told
    assert not (tmp_path / "evil").exists()


def test_without_a_network_there_is_one_line_soon(stand_in, tmp_path, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        begin = time.monotonic()
        told = refusal(lambda: hub.fetch(f"hub:{ID}", tmp_path))
    assert "the Hugging Face hub cannot be reached" in told
    assert time.monotonic() - begin < 15


# ---- encoders come from the same hub


@pytest.fixture
def encoder(stand_in, tmp_path) -> Path:
    """The folder of a tiny checkpoint that the stand-in serves as `tiny/bert`."""
    folder = write_checkpoint(tmp_path / "bert")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    stand_in.repositories["models", "tiny/bert"] = files
    return folder


NEEDED = ("config.json",)


def test_an_encoder_resolves_from_the_hub(stand_in, encoder):
    stand_in.cuts["model.safetensors"] = 2 * STEP
    found = hf.resolve("tiny/bert", NEEDED)
    assert pretrained.fingerprint(found) == pretrained.fingerprint(encoder)
    ranges = stand_in.ranges("cdn/models/tiny/bert/model.safetensors")
    assert ranges == [None, f"bytes={2 * STEP}-"]
    asked = len(stand_in.requests)
    assert hf.resolve("tiny/bert", NEEDED) == found
    assert len(stand_in.requests) == asked  # no network


def test_an_encoder_of_the_wrong_length_is_refused(stand_in, encoder):
    stand_in.short.add("model.safetensors")
    told = refusal(lambda: hf.resolve("tiny/bert", NEEDED))
    assert "encoder tiny/bert: the transfer broke off; run again" in told
    stand_in.short.clear()
    assert pretrained.fingerprint(hf.resolve("tiny/bert", NEEDED)) == pretrained.fingerprint(
        encoder
    )


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_damaged_encoder_is_refused_and_fetched_anew(stand_in, encoder, file):
    """Of the right length: the client takes it."""
    stand_in.damaged.add(file)
    with pytest.raises(UserError, match=f"encoder tiny/bert: {file} arrived damaged") as caught:
        hf.resolve("tiny/bert", NEEDED)
    assert "\n" not in str(caught.value)
    cache = Path(huggingface_hub.constants.HF_HUB_CACHE) / "models--tiny--bert"
    assert not any(path.name == file for path in cache.glob("snapshots/*/*"))
    assert len(list(cache.glob("blobs/*"))) == 1  # the other file's
    stand_in.damaged.clear()
    assert pretrained.fingerprint(hf.resolve("tiny/bert", NEEDED)) == pretrained.fingerprint(
        encoder
    )


def test_a_full_disk_gets_one_line(stand_in, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    assert "No space left on device" in refusal(lambda: hub.fetch(f"hub:{ID}", tmp_path))


OTHER_WEIGHTS = ("tf_model.h5", "flax_model.msgpack", "onnx/model.safetensors", "rust_model.ot")


@pytest.mark.parametrize("form", ["model.safetensors", "pytorch_model.bin"])
def test_only_the_weights_that_are_read_are_downloaded(stand_in, encoder, form):
    """Safetensors where there are some, else PyTorch's file as older checkpoints have it."""
    files = stand_in.repositories["models", "tiny/bert"]
    files |= dict.fromkeys(OTHER_WEIGHTS, b"large")
    if form == "pytorch_model.bin":
        pytest.importorskip("torch", reason="PyTorch's files are read by torch alone")
        files[form] = pickled(encoder)
        del files["model.safetensors"]
    else:
        files["pytorch_model.bin"] = b"large"
    folder = hf.resolve("tiny/bert", NEEDED)
    assert {path.name for path in folder.iterdir()} == {"config.json", form}
    arrays = golden("uncased")
    keys = ("input_ids", "attention_mask", "token_type_ids")
    assert_same(load_bert(folder), arrays, **{key: arrays[key] for key in keys})
    asked = len(stand_in.requests)
    assert hf.resolve("tiny/bert", NEEDED) == folder
    assert len(stand_in.requests) == asked  # no network


def test_without_torch_nothing_is_downloaded_that_needs_it(stand_in, encoder, monkeypatch):
    files = stand_in.repositories["models", "tiny/bert"]
    files["pytorch_model.bin"] = files.pop("model.safetensors")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    told = refusal(lambda: hf.resolve("tiny/bert", NEEDED))
    assert "pip install 'drin-jax[detector]'" in told
    assert "or convert them to safetensors" in told
    assert not stand_in.ranges("pytorch_model.bin")
