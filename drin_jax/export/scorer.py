"""An exported scorer, loaded and called. Knows the artefact and its manifest, and no model."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax import export as jax_export
from jaxtyping import Float

from data_pipeline.schema import UserError, reason
from drin_jax.export import manifest

Params = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Scorer:
    """Scores candidates as `drin_jax.evaluation.evaluate` did; from `drin_jax.export.load`.

    `manifest` is what `export.json` holds: the inputs with their shapes, the axis of `edges`, the
    protocol, the versions.
    """

    manifest: Mapping[str, Any]
    params: Params
    call: Callable[[Params, Mapping[str, Any]], jax.Array]

    @property
    def needs(self) -> tuple[str, ...]:
        """What a batch holds beside the vertex features, of `data_pipeline.schema.NEEDS`."""
        return tuple(self.manifest["needs"])

    def scores(self, arrays: Mapping[str, Any]) -> Float[np.ndarray, "b scored"]:
        """Scores [b, r], higher is better; a slot without a candidate scores 0 and has to be masked
        by `candidate_mask`. (A run with `graph.gold_slot = "upstream"` takes the gold in the last
        slot and scores the others: [b, r - 1].)

        Each new combination of sizes is compiled once, so pad to a few of them.

        Args:
            arrays: named as `data_pipeline.schema.batch_shapes`, any b, r, s and q; `gold` and
                `mask` are not read and may be missing.
        Raises:
            UserError: a name, dtype or shape is not as `export.json` says.
        """
        wanted = self.manifest["inputs"]
        unknown = sorted(set(arrays) - {*wanted, *manifest.UNREAD})
        missing = sorted(set(wanted) - set(arrays))
        if unknown or missing:
            what = f"no {missing[0]}" if missing else f"an unknown {unknown[0]}"
            raise UserError(
                f"scores was given {what}; {self.manifest['model']} takes {', '.join(wanted)}"
            )
        sizes: dict[str, int] = {}
        for name, spec in wanted.items():
            _check(name, arrays[name], spec, sizes)
        return np.array(self.call(self.params, {name: arrays[name] for name in wanted}))


def _check(name: str, array: Any, spec: Mapping[str, Any], sizes: dict[str, int]) -> None:
    """UserError unless `array` is as `spec` says, with the sizes that others had; adds its own."""
    shape, dtype = getattr(array, "shape", None), getattr(array, "dtype", None)
    if shape is None or str(dtype) != spec["dtype"]:
        given = type(array).__name__ if dtype is None else dtype
        raise UserError(f"{name} is {given}; it has to be an array of {spec['dtype']}")
    fits = len(shape) == len(spec["shape"]) and all(
        given == (sizes.setdefault(wanted, given) if isinstance(wanted, str) else wanted)
        for given, wanted in zip(shape, spec["shape"], strict=True)
    )
    if not fits:
        known = "".join(f", {symbol} = {size}" for symbol, size in sizes.items())
        form = f"[{', '.join(map(str, spec['shape']))}]"
        raise UserError(f"{name} is {list(shape)}; it has to be {form}{known}")
    if 0 in [given for given, wanted in zip(shape, spec["shape"], strict=True) if wanted != 0]:
        raise UserError(f"{name} is {list(shape)}; there is nothing to score, give at least one")


def load(folder: Path) -> Scorer:
    """What `drin_jax.export.load` documents."""
    content = manifest.read(folder)
    platform = jax_export.default_export_platform()
    if platform not in content["platforms"]:
        raise UserError(
            f"{folder}: exported for {', '.join(content['platforms'])}, and this process runs on "
            f"{platform}; export it with --platforms={','.join([*content['platforms'], platform])}"
        )
    exported = _deserialize(folder / manifest.ARTEFACT, content)
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = {
        name: jax.ShapeDtypeStruct(tuple(spec["shape"]), spec["dtype"], sharding=sharding)
        for name, spec in content["parameters"].items()
    }
    path = folder / manifest.PARAMS
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            params = checkpointer.restore(path.absolute(), like)
    except Exception as error:  # damage surfaces as whatever tensorstore or orbax meets first
        raise UserError(f"{path}: unreadable ({reason(error)}); {manifest.AGAIN}") from None
    return Scorer(content, params, jax.jit(exported.call))


def _deserialize(path: Path, content: Mapping[str, Any]) -> jax_export.Exported:
    versions = f"exported with jax {content['jax']}, and this is jax {jax.__version__}"
    newest = jax_export.maximum_supported_calling_convention_version
    oldest = jax_export.minimum_supported_calling_convention_version
    convention = content["calling_convention"]
    if not oldest <= convention <= newest:
        raise UserError(
            f"{path}: {versions}, which reads calling conventions {oldest} to {newest}, not "
            f"{convention}; use that jax, or {manifest.AGAIN}"
        )
    try:
        return jax_export.deserialize(bytearray(path.read_bytes()))
    except ImportError as error:
        raise UserError(f"{path}: {error}; run pip install -r requirements.txt") from None
    except Exception as error:  # whatever the parser of another version meets first
        raise UserError(
            f"{path}: {versions}, which cannot read it ({reason(error)}); use that jax, or "
            f"{manifest.AGAIN}"
        ) from None
