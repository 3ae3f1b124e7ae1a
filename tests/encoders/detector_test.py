"""What is ours around torchvision's detectors; `make test-detector` holds it to the real ones."""

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline.schema import UserError
from drin_jax.encoders import detector
from drin_jax.encoders.detector import Detector

SHAPES = ((40, 60), (60, 40), (9, 9))


def picture(height: int, width: int) -> np.ndarray:
    pixels = np.arange(height * width * 3, dtype=np.uint32) % 256
    return pixels.astype(np.uint8).reshape(height, width, 3)


def one_line(call: Callable[[], Any]) -> str:
    """The one line of a UserError."""
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def weights(folder: Path) -> Path:
    (folder / "some.pth").write_bytes(b"any bytes")
    return folder / "some.pth"


def stand_in(monkeypatch: pytest.MonkeyPatch, found: Any) -> None:
    """Puts `found(pixels) -> boxes, scores` where the network goes."""
    monkeypatch.setattr(detector, "load_model", lambda *_: found)


def test_the_most_confident_come_first_and_ties_keep_their_order(tmp_path, monkeypatch):
    boxes = np.arange(24, dtype=np.float32).reshape(6, 4)
    scores = np.array([0.5, 0.9, 0.5, 0.0, np.nan, 0.7], np.float32)
    stand_in(monkeypatch, lambda _: (boxes, scores))
    found = Detector("fasterrcnn", weights=weights(tmp_path))
    for k, rows in {1: [1], 3: [1, 5, 0], 4: [1, 5, 0, 2], 50: [1, 5, 0, 2]}.items():
        ((kept, sure),) = found.find([picture(8, 8)], k)
        np.testing.assert_array_equal(kept, boxes[rows])
        np.testing.assert_array_equal(sure, scores[rows])
        assert (kept.dtype, sure.dtype) == (np.float32, np.float32)


def test_every_picture_is_looked_at_alone_and_nothing_found_is_empty(tmp_path, monkeypatch):
    seen = []

    def found(pixels: np.ndarray) -> tuple[list[Any], list[float]]:
        seen.append(pixels)
        height, width = pixels.shape[:2]
        return ([], []) if height == width else ([[0, 0, width, height]], [0.5])

    stand_in(monkeypatch, found)
    some = [picture(*shape) for shape in SHAPES]
    out = Detector("maskrcnn", weights=weights(tmp_path)).find(some, 3)
    assert all(a is b for a, b in zip(seen, some, strict=True))
    assert [boxes.tolist() for boxes, _ in out] == [[[0, 0, 60, 40]], [[0, 0, 40, 60]], []]
    assert [boxes.shape for boxes, _ in out] == [(1, 4), (1, 4), (0, 4)]
    assert [scores.tolist() for _, scores in out] == [[0.5], [0.5], []]


def test_the_fingerprint_is_the_files(tmp_path, monkeypatch):
    stand_in(monkeypatch, None)
    file = weights(tmp_path)
    first = Detector("fasterrcnn", weights=file).fingerprint
    (tmp_path / "renamed.pth").write_bytes(file.read_bytes())
    assert Detector("fasterrcnn", weights=tmp_path / "renamed.pth").fingerprint == first
    file.write_bytes(b"other bytes")
    assert Detector("fasterrcnn", weights=file).fingerprint != first


def test_bad_arguments_get_one_line(tmp_path, monkeypatch):
    assert "known are fasterrcnn, maskrcnn" in one_line(lambda: Detector("yolo"))
    told = one_line(lambda: Detector("fasterrcnn", weights=tmp_path / "no.pth"))
    assert f"{tmp_path / 'no.pth'}: no such file of weights" in told
    stand_in(monkeypatch, lambda _: ([], []))
    found = Detector("fasterrcnn", weights=weights(tmp_path))
    assert "at least 1" in one_line(lambda: found.find([picture(8, 8)], 0))
    grey = picture(8, 8)[..., 0]
    assert "pass uint8" in one_line(lambda: found.find([grey], 1))
    assert "pass uint8" in one_line(lambda: found.find([picture(8, 8) / 255], 1))


@pytest.mark.parametrize("missing", ["torch", "torchvision"])
def test_a_missing_library_gets_one_line(tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.delitem(sys.modules, missing)
    real = sys.meta_path[:]
    hide = types.SimpleNamespace(find_spec=lambda name, *_: _absent(name, missing))
    monkeypatch.setattr(sys, "meta_path", [hide, *real])
    for file in (weights(tmp_path), None):
        told = one_line(lambda file=file: Detector("fasterrcnn", weights=file))
        assert f"{missing} is not installed; pip install 'drin-jax[detector]'" in told


def _absent(name: str, missing: str) -> None:
    if name == missing:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_builds_that_do_not_fit_get_one_line(tmp_path, monkeypatch):
    """As torchvision's PyPI build does beside a torch without CUDA."""
    package = tmp_path / "site" / "torchvision"
    package.mkdir(parents=True)
    source = 'raise RuntimeError("operator torchvision::nms does not exist\\nsecond line")\n'
    (package / "__init__.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    told = one_line(lambda: Detector("fasterrcnn", weights=weights(tmp_path)))
    assert "does not import beside torch" in told
    assert "(operator torchvision::nms does not exist)" in told
    assert told.endswith("install a pair that fits: pip install 'drin-jax[detector]'")


# ---- with torch, and a network that stands in for torchvision's


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    torch = pytest.importorskip("torch", reason="torch is not installed (make test TORCH=)")

    class Network(torch.nn.Module):
        """One object, `size` times the picture, as sure as its bottom left pixel is red."""

        transform = types.SimpleNamespace(min_size=(800,), max_size=1333)

        def __init__(self) -> None:
            super().__init__()
            self.size = torch.nn.Parameter(torch.ones(()))

        def forward(self, some: list[Any]) -> list[dict[str, Any]]:
            assert not self.training
            (pixels,) = some
            _, height, width = pixels.shape
            whole = torch.tensor([[0, 0, width, height]]) * self.size
            return [{"boxes": whole, "scores": pixels[0, -1, :1]}]

    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setattr(detector, "architecture", lambda *_: Network())
    return torch


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_pixels_go_in_as_fractions_and_boxes_come_out_as_they_are(torch, tmp_path, kind):
    file = tmp_path / f"half.{kind}"
    if kind == "pth":
        torch.save({"size": torch.tensor(0.5)}, file)
    else:
        from safetensors.torch import save_file

        save_file({"size": torch.tensor(0.5)}, file)
    found = Detector("fasterrcnn", weights=file, device="cpu")
    red = np.zeros((40, 60, 3), np.uint8)
    red[-1, 0] = 51, 102, 204
    red.flags.writeable = False  # as Pillow hands it out
    thin = np.full((9, 40_000, 3), 255, np.uint8)  # torchvision would scale it to nothing
    (boxes, scores), (none, _) = found.find([red, thin], 3)
    assert boxes.tolist() == [[0, 0, 30, 20]]
    assert scores == pytest.approx([0.2])
    assert none.shape == (0, 4)


def test_unfitting_weights_get_one_line(torch, tmp_path):
    file = tmp_path / "some.pth"
    size = torch.ones(())
    for content, words in {
        "foreign": ({"other": size}, ("missing: size", "unexpected: other")),
        "shape": ({"size": torch.ones(3)}, ("wrong shape: size (3,), not ()",)),
        "training": ({"model": {"size": size}, "epoch": 3}, ("holds no state dict",)),
        "list": ([size], ("holds no state dict",)),
    }.values():
        torch.save(content, file)
        told = one_line(lambda: Detector("fasterrcnn", weights=file))
        assert all(word in told for word in (str(file), *words)), told


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"PK\x03\x04" + b"\0" * 60], ids=["empty", "page", "cut"]
)
def test_damaged_weights_get_one_line(torch, tmp_path, kind, content):
    file = tmp_path / f"some.{kind}"
    file.write_bytes(content)
    told = one_line(lambda: Detector("fasterrcnn", weights=file))
    assert f"{file}: not a whole file of weights" in told


def test_a_device_that_is_not_there_gets_one_line(torch, tmp_path):
    torch.save({"size": torch.ones(())}, tmp_path / "some.pth")
    for device in ("cuda:99", "toaster"):
        told = one_line(
            lambda device=device: Detector(
                "fasterrcnn", weights=tmp_path / "some.pth", device=device
            )
        )
        assert f"cannot use device {device!r}" in told


def test_out_of_memory_is_one_line(torch, tmp_path, monkeypatch):
    class Greedy(type(detector.architecture())):
        def forward(self, some: list[Any]) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(detector, "architecture", lambda *_: Greedy())
    torch.save({"size": torch.ones(())}, tmp_path / "some.pth")
    found = Detector("fasterrcnn", weights=tmp_path / "some.pth", device="cpu")
    told = one_line(lambda: found.find([picture(8, 8)], 1))
    assert "device cpu has no memory left" in told


# ---- torchvision's own weights


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> types.SimpleNamespace:
    """A torch whose downloads are ours: `content` arrives, or an error where it is None."""
    at = types.SimpleNamespace(content=None, folder=tmp_path / "hub" / "checkpoints", asked=[])
    at.url = "https://example.org/models/fasterrcnn_resnet50_fpn_coco-ba7816bf.pth"

    def download(url: str, target: str, prefix: str, progress: bool) -> None:
        at.asked.append((url, prefix))
        if at.content is None:
            raise OSError("no route")
        Path(target).write_bytes(at.content)

    hub = types.SimpleNamespace(get_dir=lambda: tmp_path / "hub", download_url_to_file=download)
    coco = types.SimpleNamespace(COCO_V1=types.SimpleNamespace(url=at.url))
    models = types.SimpleNamespace(get_model_weights={"fasterrcnn_resnet50_fpn": coco}.get)
    for name, parts in {"torch": {"hub": hub}, "torchvision": {"models": models}}.items():
        module = types.ModuleType(name)
        module.__dict__.update(parts)
        monkeypatch.setitem(sys.modules, name, module)
    stand_in(monkeypatch, None)
    return at


def test_published_weights_are_downloaded_once(published):
    published.content = b"abc"  # its SHA-256 begins with ba7816bf
    first = Detector("fasterrcnn")
    assert Detector("fasterrcnn").fingerprint == first.fingerprint
    assert published.asked == [(published.url, "ba7816bf")]


def test_without_a_network_the_line_says_what_to_fetch(published):
    told = one_line(lambda: Detector("fasterrcnn"))
    assert f"{published.url} cannot be downloaded (OSError)" in told
    assert "set encoders.detector_weights to the file" in told


def test_damaged_published_weights_get_one_line(published):
    published.content = b"abd"
    told = one_line(lambda: Detector("fasterrcnn"))
    assert str(published.folder) in told
    assert "damaged (its SHA-256 does not begin with ba7816bf); delete it" in told
