"""What an export holds, and its scorer, loaded and called. Knows no model.

`export.json` is written last and holds the SHA-256 of every other file and of itself, so that what
is cut, changed or missing is told before anything is run.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax import export as jax_export
from jaxtyping import Float

from data_pipeline import schema
from data_pipeline.files import check_files, is_inside, own_checksum, read_json
from data_pipeline.schema import UserError, reason

FORMAT, VERSION = "drin_jax export", 1
MANIFEST, CONFIG, PARAMS, ARTEFACT = "export.json", "config.json", "params", "scorer.jaxexport"
PLATFORMS = ("cpu", "cuda", "tpu")
UNREAD = ("gold", "mask")  # of a batch: what training and evaluation know, and scores do not need

# What is read of a manifest.
FIELDS = {
    dict: "files inputs parameters widths",
    list: "needs platforms",
    str: "dtype jax model",
    int: "calling_convention",
    bool: "gold_slot",
}
DTYPES = ("float32", "bfloat16", "int32", "bool")

Params = dict[str, jax.Array]
Size = Any  # an int, or a symbol of jax.export

AGAIN = "export the run again with python -m drin_jax.export"


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
        unknown = sorted(set(arrays) - {*wanted, *UNREAD})
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
    content = read(folder)
    platform = jax_export.default_export_platform()
    if platform not in content["platforms"]:
        raise UserError(
            f"{folder}: exported for {', '.join(content['platforms'])}, and this process runs on "
            f"{platform}; export it with --platforms={','.join([*content['platforms'], platform])}"
        )
    exported = _deserialize(folder / ARTEFACT, content)
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = {
        name: jax.ShapeDtypeStruct(tuple(spec["shape"]), spec["dtype"], sharding=sharding)
        for name, spec in content["parameters"].items()
    }
    path = folder / PARAMS
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            params = checkpointer.restore(path.absolute(), like)
    except Exception as error:  # damage surfaces as whatever tensorstore or orbax meets first
        raise UserError(f"{path}: unreadable ({reason(error)}); {AGAIN}") from None
    return Scorer(content, params, jax.jit(exported.call))


def _deserialize(path: Path, content: Mapping[str, Any]) -> jax_export.Exported:
    versions = f"exported with jax {content['jax']}, and this is jax {jax.__version__}"
    newest = jax_export.maximum_supported_calling_convention_version
    oldest = jax_export.minimum_supported_calling_convention_version
    convention = content["calling_convention"]
    if not oldest <= convention <= newest:
        raise UserError(
            f"{path}: {versions}, which reads calling conventions {oldest} to {newest}, not "
            f"{convention}; use that jax, or {AGAIN}"
        )
    try:
        return jax_export.deserialize(bytearray(path.read_bytes()))
    except ImportError as error:
        raise UserError(f"{path}: {error}; run pip install -r requirements.txt") from None
    except Exception as error:  # whatever the parser of another version meets first
        raise UserError(
            f"{path}: {versions}, which cannot read it ({reason(error)}); use that jax, or {AGAIN}"
        ) from None


def inputs(
    b: Size, r: Size, t: int, v: int, needs: Collection[str], s: Size, q: Size
) -> dict[str, tuple[tuple[Size, ...], str]]:
    """Shapes and dtypes of the arrays that a scorer takes; sizes may be symbols."""
    shapes = schema.batch_shapes(b, r, t, v, needs, s, q)
    return {name: shape for name, shape in shapes.items() if name not in UNREAD}


def read(folder: Path) -> dict[str, Any]:
    """`export.json`, every file that it names being as it says.

    Raises:
        UserError: no export, of another version, or damaged.
    """
    content = peek(folder)
    if content is None:
        what = f"holds no {MANIFEST} of ours" if folder.is_dir() else "is no folder"
        raise UserError(
            f"{folder} {what}, so it is no export; give the --out of python -m drin_jax.export"
        )
    if content.get("version") != VERSION:
        raise UserError(
            f"{folder / MANIFEST}: is of version {content.get('version')}, made by drin_jax "
            f"{content.get('drin_jax')}; this program reads version {VERSION}; {AGAIN} of one of "
            "the two"
        )
    if content.get("checksum") != own_checksum(content):
        raise UserError(f"{folder / MANIFEST}: damaged, it is not as it was written; {AGAIN}")
    if odd := _odd(content):
        raise UserError(f"{folder / MANIFEST}: its {odd!r} is missing or odd; {AGAIN}")
    check_files(folder, content["files"], AGAIN)
    return content


def _odd(content: Mapping[str, Any]) -> str:
    """The first field that is not as an export has it, "" where there is none."""
    for kind, names in FIELDS.items():
        for name in names.split():
            if type(content.get(name)) is not kind:
                return name
    for name in ("platforms", "needs"):
        if not all(isinstance(text, str) for text in content[name]):
            return name
    if not all(map(is_inside, content["files"])):
        return "files"
    for name, sizes in (("parameters", (int,)), ("inputs", (int, str))):
        for spec in content[name].values():
            fits = isinstance(spec, dict) and spec.get("dtype") in DTYPES
            shape = spec.get("shape") if fits else None
            if not isinstance(shape, list) or not all(type(size) in sizes for size in shape):
                return name
    return ""


def peek(folder: Path) -> dict[str, Any] | None:
    """`export.json` as it is, of any version; None where the folder is no export.

    Raises:
        UserError: there is such a file and it cannot be read.
    """
    try:
        content = read_json(folder / MANIFEST, AGAIN, form=object)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return content if isinstance(content, dict) and content.get("format") == FORMAT else None
