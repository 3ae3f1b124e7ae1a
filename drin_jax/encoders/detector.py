"""Objects of a picture with their confidence: torchvision's detectors (extra "detector").

torch and torchvision are imported when a detector is made, by nothing else in this package.
"""

import contextlib
import importlib.metadata
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float32

from data_pipeline.files import sha256
from data_pipeline.schema import UserError, check_known, check_least
from drin_jax.encoders.frozen import check_pixels
from drin_jax.encoders.pretrained import misfits, read_file

# ResNet-50 with a feature pyramid, both: Ren et al. 2015, He et al. 2017.
NAMES = {"fasterrcnn": "fasterrcnn_resnet50_fpn", "maskrcnn": "maskrcnn_resnet50_fpn"}
CLASSES = 91  # COCO's, and the background

Found = tuple[Float32[np.ndarray, "_ 4"], Float32[np.ndarray, " _"]]
Model = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # uint8 [h, w, 3] -> boxes, scores

_INSTALL = "pip install 'drin-jax[detector]'"
_COUNTS = "num_batches_tracked"
_SECONDS = 10.0  # to wait for a server's next bytes


class Detector:
    """A detector as a function from pictures to boxes with scores.

    Args:
        name: "fasterrcnn" or "maskrcnn".
        weights: file of a state dict for this architecture, `.pth` or `.safetensors`. None takes
            torchvision's COCO_V1, downloaded once into torch's hub folder.
        device: a torch device; by default a GPU where there is one.

    Raises:
        UserError: unknown name, torch or torchvision missing or not made for each other, weights
            that are missing, damaged or of another architecture, no network.
    """

    def __init__(self, name: str, *, weights: str | Path | None = None, device: str | None = None):
        check_known("detector", name, NAMES)
        path = published(name) if weights is None else Path(weights).expanduser()
        if not path.is_file():
            raise UserError(f"{path}: no such file of weights; mend encoders.detector_weights")
        self.fingerprint = sha256(path)  # of the file's bytes, wherever it came from
        self._model = load_model(name, path, device)

    def find(self, some: Sequence[np.ndarray], k: int) -> list[Found]:
        """The `k` most confident objects of each picture (uint8 RGB [h, w, 3]), best first.

        Each picture goes through the network by itself: padding it to its neighbours' size would
        change its boxes.

        Returns:
            Of each picture boxes [k', 4] (left, top, right, bottom in its own pixels) and scores
            [k'], above 0; k' <= k, and 0 where nothing is found. Equal scores keep the network's
            order.

        Raises:
            UserError: pixels of another type or shape, k below 1, the device's memory too small.
        """
        check_least("a detector's number of objects", k, 1)
        found = []
        for picture in some:
            check_pixels(picture[None])
            boxes, scores = (np.asarray(part, np.float32) for part in self._model(picture))
            order = np.argsort(-scores, kind="stable")
            best = order[scores[order] > 0][:k]
            found.append((boxes.reshape(-1, 4)[best], scores[best]))
        return found


def load_model(name: str, path: Path, device: str | None) -> Model:
    """The network of a file of weights; a test puts a stand-in here."""
    torch, vision = _libraries(name)
    network = architecture(vision, name)
    tensors = {key: torch.tensor(value) for key, value in read_file(path).items()}
    # torchvision's published weights, and what is trained on from them, come from frozen
    # normalisations that add nothing to the variance. Ordinary ones leave a count of batches.
    eps = 1e-5 if any(key.endswith(_COUNTS) for key in tensors) else 0.0
    tensors = {key: tensor for key, tensor in tensors.items() if not key.endswith(_COUNTS)}
    if told := misfits(tensors, network.state_dict()):
        raise UserError(
            f"{path}: the weights do not fit {NAMES[name]} ({told}); use a matching pair"
        )
    network.load_state_dict(tensors)
    for module in network.modules():
        if type(module).__name__ == "FrozenBatchNorm2d":
            module.eps = eps
    if name == "maskrcnn":  # without its pooling the mask branch rests; boxes do not depend on it
        network.roi_heads.mask_roi_pool = None
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        network = network.to(device).eval()
    except Exception as error:  # torch raises RuntimeError, AssertionError and others
        told = f"detector {name}: cannot use device {device!r} ({type(error).__name__})"
        raise UserError(f"{told}; pass another one, or free its memory") from None

    def run(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if _vanishes(network.transform, *picture.shape[:2]):
            return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
        pixels = torch.from_numpy(np.array(picture.transpose(2, 0, 1), order="C"))
        # True float32 products, and the same ones in every run.
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        try:
            with torch.inference_mode(), exact:
                out = network([pixels.to(device).float() / 255])[0]
                return out["boxes"].cpu().numpy(), out["scores"].cpu().numpy()
        except torch.OutOfMemoryError:
            raise UserError(
                f"detector {name}: device {device} has no memory left; JAX reserves most of a "
                "GPU's: set XLA_PYTHON_CLIENT_MEM_FRACTION=0.5"
            ) from None

    return run


def architecture(vision: ModuleType, name: str) -> Any:
    """torchvision's network without weights, its normalisations frozen; a test puts another here.

    That is what torchvision builds for its own weights; for none it builds trainable ones.
    """
    detection = vision.models.detection
    build = {"fasterrcnn": detection.FasterRCNN, "maskrcnn": detection.MaskRCNN}[name]
    backbone = detection.backbone_utils.resnet_fpn_backbone(backbone_name="resnet50", weights=None)
    return build(backbone, num_classes=CLASSES)


def published(name: str) -> Path:
    """torchvision's own file of COCO_V1 weights, in torch's hub folder as torchvision leaves it.

    Raises:
        UserError: it is not there and cannot be downloaded, or is damaged.
    """
    torch, vision = _libraries(name)
    url = str(vision.models.get_model_weights(NAMES[name]).COCO_V1.url)
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    prefix = path.stem.rsplit("-", 1)[1]  # the file's name ends in the first digits of its SHA-256
    if not path.is_file():
        if not (live := sys.stderr.isatty()):
            print(f"downloading {url} to {path}", file=sys.stderr, flush=True)
        patience = socket.getdefaulttimeout()
        socket.setdefaulttimeout(_SECONDS)  # torch.hub's download has no time limit of its own
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), prefix, progress=live)
        except Exception as error:  # URLError, OSError, RuntimeError of a wrong sum, and others
            raise UserError(
                f"detector {name}: {url} cannot be downloaded ({type(error).__name__}); download "
                "it elsewhere and set encoders.detector_weights to the file"
            ) from None
        finally:
            socket.setdefaulttimeout(patience)
    if not sha256(path).startswith(prefix):
        raise UserError(f"{path}: damaged (its SHA-256 does not begin with {prefix}); delete it")
    return path


def _libraries(name: str) -> tuple[ModuleType, ModuleType]:
    try:
        import torch
        import torchvision
    except ModuleNotFoundError as error:
        raise UserError(f"detector {name}: {error.name} is not installed; {_INSTALL}") from None
    except Exception as error:  # builds that do not fit: RuntimeError, OSError, ImportError
        told = str(error).strip().split("\n")[0]
        raise UserError(
            f"detector {name}: {_version('torchvision')} does not import beside "
            f"{_version('torch')} ({told}); install a pair that fits: {_INSTALL}"
        ) from None
    return torch, torchvision


def _version(package: str) -> str:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return f"{package} {importlib.metadata.version(package)}"
    return package


def _vanishes(transform: Any, height: int, width: int) -> bool:
    """Whether torchvision's resize leaves less than a pixel of the short side: it would fail."""
    short, long = min(height, width), max(height, width)
    scale = min(transform.min_size[-1] / short, transform.max_size / long)
    return int(short * scale) < 1
