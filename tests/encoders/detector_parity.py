"""Our detector against torchvision's own, with random weights: `make test-detector`, which has an
environment with torchvision. pytest does not collect this file by itself."""

from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from data_pipeline.pictures import images
from drin_jax.encoders import detector
from drin_jax.encoders.detector import NAMES, Detector
from drin_jax.encoders.picture_encoders import ResNetEncoder
from drin_jax.extract import preparation
from drin_jax.extract.pairs import edges
from tests.encoders.detector_test import one_line
from tests.support import picture_world, tiny_encoders

SHAPES = ((300, 500), (640, 427))  # height, width
FEW = 20  # objects asked for
COUNTS = "num_batches_tracked"
SURER = 100  # times the classifier: random scores pass the threshold


def state(name: str, seed: int = 0) -> dict[str, Any]:
    """Random weights that find dozens of objects, with the variances of the normalisations around
    1e-5: what is added to them shows."""
    torch.manual_seed(seed)
    tensors = torchvision.models.get_model(NAMES[name], weights=None, weights_backbone=None)
    tensors = tensors.state_dict()
    for key in [key for key in tensors if key.endswith("running_var")]:
        variance = 10 ** torch.empty_like(tensors[key]).uniform_(-6, -4)
        layer = key.removesuffix("running_var")
        tensors[key] = variance
        tensors[layer + "weight"] = variance.sqrt() * torch.empty_like(variance).uniform_(0.3, 0.6)
        tensors[layer + "bias"] = torch.empty_like(variance).normal_(0, 0.1)
        tensors[layer + "running_mean"] = torch.empty_like(variance).normal_(0, 0.1)
    tensors["roi_heads.box_predictor.cls_score.weight"] *= SURER
    return tensors


def pictures() -> list[np.ndarray]:
    """Coarse noise, so that resizing leaves something to see."""
    rng = np.random.default_rng(0)
    found = []
    for height, width in SHAPES:
        noise = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        found.append(np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC)))
    return found


def by_hand(network: Any, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with torch.inference_mode():
        pixels = torchvision.transforms.functional.to_tensor(picture.copy())
        (out,) = network.eval()([pixels])
    return out["boxes"].numpy(), out["scores"].numpy()


@pytest.fixture(params=list(NAMES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_as_torchvision_with_its_own_weights(name, tmp_path, monkeypatch):
    """Random weights where torchvision looks for its own file, so that it loads them its own way;
    equal to the bit."""
    tensors = {key: value for key, value in state(name).items() if not key.endswith(COUNTS)}
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    kind = torchvision.models.get_model_weights(NAMES[name]).COCO_V1
    file = tmp_path / "hub" / "checkpoints" / kind.url.rsplit("/", 1)[1]
    file.parent.mkdir(parents=True)
    torch.save(tensors, file)
    theirs = torchvision.models.get_model(NAMES[name], weights=kind)
    resized: list[Any] = []  # height and width the network works at, and its boxes there
    theirs.roi_heads.register_forward_hook(
        lambda _, args, out: resized.append((args[2][0], out[0][0]["boxes"]))
    )
    ours = Detector(name, weights=file, device="cpu").find(pictures(), FEW)
    for picture, (boxes, scores) in zip(pictures(), ours, strict=True):
        wanted, sure = by_hand(theirs, picture)
        print(
            f"{name}: {len(sure)} objects, scores {sure[:FEW].max():.3f} to {sure[:FEW].min():.3f}"
        )
        assert len(sure) > FEW
        assert len(np.unique(sure[:FEW])) > FEW // 2
        np.testing.assert_array_equal(boxes, wanted[:FEW])
        np.testing.assert_array_equal(scores, sure[:FEW])
        size, raw = resized.pop()
        scale = np.array(picture.shape[1::-1]) / np.array(size[::-1])
        np.testing.assert_allclose(boxes, raw[:FEW].numpy() * np.tile(scale, 2), rtol=1e-5)
    told = one_line(lambda: Detector(name))  # what lies there is not the published file
    assert f"{file}: damaged" in told


def test_as_torchvision_with_trained_normalisations(name, tmp_path):
    """A state dict as training from nothing saves it. Its normalisations divide, ours multiply:
    the same to float32's rounding over fifty layers."""
    theirs = torchvision.models.get_model(NAMES[name], weights=None, weights_backbone=None)
    theirs.load_state_dict(state(name))
    torch.save(theirs.state_dict(), tmp_path / "own.pth")
    (picture, _) = pictures()
    ((boxes, scores),) = Detector(name, weights=tmp_path / "own.pth", device="cpu").find(
        [picture], FEW
    )
    wanted, sure = by_hand(theirs, picture)
    print(
        f"{name}: boxes differ by {np.abs(boxes - wanted[:FEW]).max():.2g} pixels, "
        f"scores by {np.abs(scores - sure[:FEW]).max():.2g}"
    )
    np.testing.assert_allclose(boxes, wanted[:FEW], atol=1e-2)
    np.testing.assert_allclose(scores, sure[:FEW], atol=1e-4)


def test_another_architectures_file_is_refused(tmp_path):
    for mine, other in (NAMES, tuple(NAMES)[::-1]):
        torch.save(state(other), tmp_path / "other.pth")
        told = one_line(lambda mine=mine: Detector(mine, weights=tmp_path / "other.pth"))
        assert f"the weights do not fit {NAMES[mine]}" in told
        assert ("missing: " if mine == "maskrcnn" else "unexpected: ") in told
        assert " and 6 more" in told


def test_odd_shapes_pass(name, tmp_path):
    torch.save(state(name), tmp_path / "some.pth")
    found = Detector(name, weights=tmp_path / "some.pth", device="cpu")
    shapes = ((1, 1), (8, 10_664), (10_664, 8), (9, 40_000), (40_000, 9))
    rng = np.random.default_rng(1)
    some = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    out = found.find(some, 5)
    assert [len(scores) for _, scores in out[3:]] == [0, 0]  # resized to nothing
    for (height, width), (boxes, _) in zip(shapes, out, strict=True):
        assert (boxes >= 0).all()
        assert (boxes <= np.array([width, height] * 2) + 1e-3 * max(height, width)).all()


def test_extraction_with_torchvision(tmp_path, monkeypatch):
    """vv [11] from boxes of torchvision's network, called by hand; it resizes to 96 pixels here,
    for time's sake."""
    real = detector.architecture

    def small(*args: Any) -> Any:
        network = real(*args)
        network.transform.min_size, network.transform.max_size = (96,), 160
        return network

    monkeypatch.setattr(detector, "architecture", small)
    torch.save(state("maskrcnn"), tmp_path / "some.pth")
    world, encoders = tmp_path / "world", tmp_path / "encoders"
    picture_world.write(world, 4, 4)
    config = picture_world.config(
        world,
        encoders,
        **{
            "encoders.objects": "maskrcnn",
            "encoders.detector_weights": str(tmp_path / "some.pth"),
            "encoders.clip": "",
        },
    )
    store = preparation.prepare(config, tmp_path / "work")
    network = small(torchvision, "maskrcnn")
    network.load_state_dict(state("maskrcnn"))
    for module in network.modules():
        if isinstance(module, torchvision.ops.FrozenBatchNorm2d):
            module.eps = 1e-5
    resnet = ResNetEncoder(encoders / "resnet")

    def objects(name: str, keep: int) -> tuple[np.ndarray, np.ndarray]:
        with Image.open(world / name) as file:
            image = file.convert("RGB")
        boxes, scores = by_hand(network, np.asarray(image))
        inside, there = images.clipped(boxes[:keep], image.size)
        assert there.all()
        crops = images.crops(image, inside, images.plain(tiny_encoders.SIDE))
        vectors = resnet.encode(crops)["pooled"]
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), scores[:keep]

    (mine, s), (theirs, t) = objects("images/m3.jpg", 3), objects("images/e0.png", 1)
    assert (len(s), len(t)) == (3, 1)
    wanted = s @ (mine @ theirs.T) @ t / (s.sum() * t.sum())
    mention = store.strings("mention_id").index("m3")
    entity = store.strings("entity_id").index("Q0")
    found = edges(store.array, np.array([mention]), np.array([[entity]]))[0, 3, 0]
    print(f"vv by hand {wanted:.6f}, in the store {found:.6f}")
    assert found == pytest.approx(wanted, abs=1e-5)
