"""Hold DRIN, MEL-HI and GHMFC against arrays that the authors' program made.

    python -m drin_jax.parity FILE.npz ...

Each file (form: tests/golden/README.md) holds inputs, parameters, gradients and outputs of one
random model. The model its `meta` describes is built, given the same parameters and inputs, and
compared; a line a file tells the largest error of every part that the file has. Exit code 1 beyond
a tolerance.
"""

import argparse
import dataclasses
import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from rich.table import Table

from data_pipeline import exits, output
from data_pipeline.schema import RELATIONS, UserError
from drin_jax.models.drin import DRIN
from drin_jax.models.ghmfc import GHMFC
from drin_jax.models.graph import edge_mask
from drin_jax.models.mel_hi import MELHI
from drin_jax.parity import torch_weights
from drin_jax.training.losses import margin_loss
from drin_jax.types import GraphBatch

TOLERANCES = {
    "vertices": 1e-5,
    "edges": 1e-5,
    "scores": 1e-5,
    "loss": 1e-5,
    "gradients": 1e-4,  # of the largest entry of each array
    "zero gradients": 1e-7,  # arrays that are zero in the reference
    "adam losses": 1e-5,
    "adam scores": 1e-4,
}
ADAM_STEPS = 5
BASELINES = ("melhi", "ghmfc")  # values of `model` in a file's `meta`; DRIN's files have none
REQUIRED = {
    *(f"in/mention_{name}" for name in ("text_feature", "start", "end", "image_feature")),
    *("in/entity_text_feature", "in/entity_image_feature", "in/answer", "out/score", "out/loss"),
}
REQUIRED_OF_DRIN = {
    *(
        f"in/{side}_object_{name}"
        for side in ("mention", "entity")
        for name in ("feature", "score")
    ),
    *("in/similarity_miet", "in/similarity_mtei", "out/adam_losses", "out/score_after_adam"),
    *("edge0/tt", "edgeL/tt", "vertex0/mt", "vertexL/mt"),
}
_VERTICES = {"mt": "mt", "mv": "mi", "et": "et", "ev": "ei"}  # ours: theirs
_EDGES = ("tt", "ti", "it", "ii")


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """A file's arrays and its `meta`. UserError where it is not such a file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(str(arrays.pop("meta")))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # zip, header and JSON damage come as many types
        raise UserError(f"{path}: not a readable reference file ({error})") from None
    name = meta.get("model")
    if name is not None and name not in BASELINES:
        known = ", ".join(BASELINES)
        raise UserError(f"{path}: holds the system {name!r}; known beside DRIN are {known}")
    required = REQUIRED | ({"in/mention_text_mask"} if name else REQUIRED_OF_DRIN)
    missing = sorted(required - set(arrays)) + sorted({"dataset", "dims", "margin"} - set(meta))
    if missing:
        whose = (name or "DRIN").upper()
        raise UserError(f"{path}: {', '.join(missing)} missing; not a reference file of {whose}")
    return arrays, meta


def build(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> DRIN | MELHI | GHMFC:
    """The model that a file describes, with the file's parameters."""
    dims, name, rngs = meta["dims"], meta.get("model"), nnx.Rngs(0)
    widths = (dims["bert"], dims["resnet"])
    model: DRIN | MELHI | GHMFC
    if name == "melhi":
        model = MELHI(
            *widths,
            width=dims["bert"],
            image_text_threshold=meta.get("thres_tmim", 0.0),
            image_entity_threshold=meta.get("thres_imie", 0.3),
            rngs=rngs,
        )
    elif name == "ghmfc":
        model = GHMFC(*widths, width=dims["bert"], max_over_padding=True, rngs=rngs)
    else:
        enabled = meta.get("enabled", [1, 1, 1, 1])
        model = DRIN(
            *widths,
            width=dims["gcn"],
            layers=meta.get("layers", 2),
            relations=tuple(name for name, on in zip(RELATIONS, enabled, strict=True) if on),
            dynamic=meta.get("edge_type", "dynamic") == "dynamic",
            pictures=True,  # the reference keeps its image vertices whatever edges are enabled
            rngs=rngs,
        )
    torch_weights.from_torch(model, _group(arrays, "w/"))
    return model


def _group(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name[len(prefix) :]: a for name, a in arrays.items() if name.startswith(prefix)}


def _error(ours: Any, theirs: np.ndarray) -> float:
    ours = np.asarray(ours)
    if ours.shape != theirs.shape:
        return float("inf")
    return float(np.max(np.abs(ours - theirs), initial=0.0))


def _worst(errors: Iterable[float]) -> float:
    return float(np.max(list(errors), initial=0.0))  # unlike max(), keeps a NaN


def compare(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> dict[str, float]:
    """The largest error of every part that the file has, by the names of `TOLERANCES`."""
    model = build(arrays, meta)
    batch = torch_weights.from_release(_group(arrays, "in/"), meta["dataset"])
    graph, params = nnx.split(model, nnx.Param)
    step = partial(_step, graph, meta["margin"])
    (loss, (scores, aux)), grads = step(params, batch)
    errors = {
        "scores": _error(scores, arrays["out/score"]),
        "loss": _error(loss, arrays["out/loss"]),
    }
    errors |= _gradient_errors(torch_weights.to_torch(grads), _group(arrays, "grad/"))
    if isinstance(model, DRIN):
        errors |= _graph_errors(aux, np.asarray(edge_mask(batch, model.relations)), arrays)
        errors |= _adam_errors(step, params, batch, arrays, meta.get("lr", 1e-3))
    return errors


@partial(jax.jit, static_argnums=(0, 1))  # files of the same shapes share a program
def _step(graph: nnx.GraphDef, margin: float, params: nnx.State, batch: GraphBatch) -> Any:
    """The loss with scores and `aux`, and the gradients."""
    # The reference's scores count the appended slot; its loss does not.
    whole = dataclasses.replace(batch, gold_slot=False)

    def forward(params: nnx.State) -> tuple[jax.Array, Any]:
        scores, aux = nnx.merge(graph, params)(whole)
        loss = margin_loss(scores[:, : batch.scored], aux, batch, form="upstream", margin=margin)
        return loss, (scores, aux)

    return jax.value_and_grad(forward, has_aux=True)(params)


def _graph_errors(
    aux: Mapping[str, Any], mask: np.ndarray, arrays: Mapping[str, np.ndarray]
) -> dict[str, float]:
    first, last = aux["vertices"][0], aux["vertices"][-1]
    return {
        "vertices": _worst(
            _error(getattr(vertices, ours), arrays[f"{group}/{theirs}"])
            for group, vertices in (("vertex0", first), ("vertexL", last))
            for ours, theirs in _VERTICES.items()
        ),
        "edges": _worst(
            # A disabled edge has no value: ours is zero, theirs is whatever was never read.
            _error(
                np.where(mask[:, i], aux["edges"][layer, :, i], 0),
                np.where(mask[:, i], arrays[f"{group}/{name}"], 0),
            )
            for group, layer in (("edge0", 0), ("edgeL", -1))
            for i, name in enumerate(_EDGES)
        ),
    }


def _gradient_errors(
    ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]
) -> dict[str, float]:
    errors: dict[str, list[float]] = {"gradients": [], "zero gradients": []}
    for name, reference in theirs.items():
        error = _error(ours[name], reference) if name in ours else float("inf")
        largest = float(np.max(np.abs(reference)))
        errors["gradients" if largest else "zero gradients"].append(error / (largest or 1))
    return {part: _worst(found) for part, found in errors.items()}


def _adam_errors(
    step: Any, params: nnx.State, batch: GraphBatch, arrays: Mapping[str, np.ndarray], lr: float
) -> dict[str, float]:
    optimizer = optax.adam(lr)
    state = optimizer.init(params)
    losses = []
    for _ in range(ADAM_STEPS):
        (loss, _), grads = step(params, batch)
        losses.append(loss)
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    (_, (scores, _)), _ = step(params, batch)
    return {
        "adam losses": _error(jnp.stack(losses), arrays["out/adam_losses"]),
        "adam scores": _error(scores, arrays["out/score_after_adam"]),
    }


def main(argv: list[str] | None = None) -> int:
    """Compare every file: 0 where all are within tolerance, 1 where one is not or is unreadable."""
    parser = argparse.ArgumentParser(prog="python -m drin_jax.parity", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.npz")
    paths = parser.parse_args(argv).files
    table = Table("file", *TOLERANCES, "", title="largest error against the reference")
    table.add_row("tolerance", *(f"{limit:.0e}" for limit in TOLERANCES.values()), "")
    failed = False
    for path in paths:
        try:
            # Accelerators round float32 products by default; parity is about the equations.
            with jax.default_matmul_precision("highest"):
                errors = compare(*read(path))
        except UserError as error:
            exits.fail(str(error))
            failed = True
            continue
        good = all(error <= TOLERANCES[name] for name, error in errors.items())
        failed |= not good
        cells = (f"{errors[name]:.1e}" if name in errors else "" for name in TOLERANCES)
        table.add_row(path.name, *cells, "ok" if good else "FAIL")
    if table.row_count > 1:
        output.console(160).print(table)
    return int(failed)
