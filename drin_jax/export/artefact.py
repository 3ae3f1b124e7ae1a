"""A run's best parameters and its scores, as a function of arrays: written as an export, and an
export compared with the model that its parameters and config build."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from jax import export as jax_export
from jaxtyping import Array, Float

import drin_jax
from data_pipeline import schema
from data_pipeline.files import checksums, draft, own_checksum, write_json
from data_pipeline.schema import UserError, check_known, reason
from drin_jax import models
from drin_jax.config import flat
from drin_jax.evaluation.reordering import WITH
from drin_jax.export import scorer
from drin_jax.linking import saved
from drin_jax.linking.model import encoders_of, from_run
from drin_jax.linking.places import IN_EXPORT
from drin_jax.models.graph import blind
from drin_jax.training.setup import build_model
from drin_jax.types import GraphBatch
from drin_jax.workdir import FinishedRun, read_config

Named = dict[str, Any]
Score = Callable[[Named, Mapping[str, Array]], Float[Array, "b scored"]]
# What is allowed: two programs of the same arithmetic in float32, or with bfloat16's 8 bits.
LIMITS = {"float32": 1e-6, "bfloat16": 2e-2}
SIZES = ({"b": 5, "r": 23, "s": 12, "q": 9}, {"b": 1, "r": 1, "s": 1, "q": 1})


def score_function(make: Callable[[], nnx.Module], gold_slot: bool, pictures: bool = True) -> Score:
    """The scores of the system that `make` builds, of named parameters and a batch's arrays.

    Args:
        pictures: False: as if no mention had one.
    """
    graphdef, like = nnx.split(nnx.eval_shape(make), nnx.Param)
    names, structure = list(models.named(like)), jax.tree.structure(like)

    def scores(params: Named, arrays: Mapping[str, Array]) -> Float[Array, "b scored"]:
        b = arrays["candidate_mask"].shape[0]
        unread = {"gold": jnp.full(b, schema.NOT_RETRIEVED, jnp.int32), "mask": jnp.ones(b, bool)}
        state = jax.tree.unflatten(structure, [params[name] for name in names])
        batch = GraphBatch.from_host({**arrays, **unread}, gold_slot)
        if not pictures:
            batch = blind(batch, jnp.zeros(b, bool))
        return nnx.merge(graphdef, state)(batch)[0]

    return scores


def trace(
    score: Score,
    params: Named,
    *,
    text_width: int,
    image_width: int,
    needs: Sequence[str],
    platforms: Sequence[str] = scorer.PLATFORMS,
) -> jax_export.Exported:
    """The scores lowered for every platform, for any b, r, tokens s and regions q."""
    symbols: Sequence[scorer.Size] = jax_export.symbolic_shape("b, r, s, q")
    b, r, s, q = symbols
    shapes = scorer.inputs(b, r, text_width, image_width, needs, s, q)
    arrays = {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in shapes.items()}
    like = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in params.items()}
    return jax_export.export(jax.jit(score), platforms=tuple(platforms))(like, arrays)


def write(
    finished: FinishedRun,
    out: Path,
    *,
    platforms: Sequence[str] = scorer.PLATFORMS,
    overwrite: bool = False,
    linker: bool = False,
) -> dict[str, Any]:
    """Export a finished run to the folder `out`, which appears whole or not at all.

    Args:
        linker: also what `Linker.from_pretrained` reads, in the folder IN_EXPORT.

    Returns:
        What `export.json` holds.
    Raises:
        UserError: `out` exists and is no export, or is one and not `overwrite`; it cannot be
            written; an unknown platform; no flatbuffers; raw files that a linker remembers
            mentions of are gone.
    """
    check_platforms(platforms)
    check_out(out, overwrite)
    spec = finished.setup.spec
    widths = {name: finished.store.sizes[name] for name in ("text_width", "image_width")}
    score = score_function(
        lambda: build_model(finished.config, **widths), spec.gold_slot, finished.setup.pictures
    )
    params = models.named(finished.params)
    exported = trace(score, params, **widths, needs=spec.needs, platforms=platforms)
    try:
        artefact = exported.serialize()
    except ImportError as error:
        raise UserError(f"{error}; run pip install -r requirements.txt") from None
    content = _describe(finished, exported, params, widths)
    out = out.absolute()
    older = out.with_name(out.name + ".older")  # an older export goes first, whole
    try:
        with draft(out) as partial:
            if older.exists() and not out.exists():  # of a run that was killed between the two
                os.replace(older, out)
            (partial / scorer.ARTEFACT).write_bytes(artefact)
            write_json(partial / scorer.CONFIG, flat(read_config(finished.workdir)))
            _save(partial / scorer.PARAMS, params)
            content["files"] = checksums(partial)  # a linker's folder has its own
            if linker:
                model = from_run(finished.workdir)
                kept = encoders_of(model), model.relations()
                saved.write(model, model.kb, *kept, partial / IN_EXPORT)
            content["checksum"] = own_checksum(content)
            write_json(partial / scorer.MANIFEST, content)
            shutil.rmtree(older, ignore_errors=True)
            if out.exists():
                os.replace(out, older)
            os.replace(partial, out)
            shutil.rmtree(older, ignore_errors=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror or error})") from None
    return content


def _save(folder: Path, params: Named) -> None:
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(folder, params)
    except Exception as error:  # a full disk surfaces as whatever tensorstore or orbax meets first
        raise UserError(f"{folder}: cannot be written ({reason(error)})") from None


def check_platforms(platforms: Sequence[str]) -> None:
    """UserError for none or an unknown one."""
    for platform in platforms or [""]:
        check_known("--platforms", platform, scorer.PLATFORMS)


def check_out(out: Path, overwrite: bool) -> None:
    """UserError where an export must not be written there."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    older = scorer.peek(out)
    if older is None:
        raise UserError(f"--out {out}: is there and is no export; give another folder")
    if not overwrite:
        raise UserError(
            f"--out {out}: holds an export of {older.get('system')} from step "
            f"{older.get('step')}; add --overwrite to replace it, or give another folder"
        )


def _describe(
    finished: FinishedRun, exported: jax_export.Exported, params: Named, widths: Mapping[str, int]
) -> dict[str, Any]:
    """`export.json` but for the checksums."""
    (_, arrays), _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)
    order = schema.batch_shapes(1, 1, 1, 1, schema.NEEDS)
    return {
        "format": scorer.FORMAT,
        "version": scorer.VERSION,
        "drin_jax": drin_jax.__version__,
        "jax": jax.__version__,
        "calling_convention": exported.calling_convention_version,
        "platforms": list(exported.platforms),
        "model": finished.config.model.name,
        "dtype": finished.config.model.dtype,
        "system": finished.system.removesuffix(WITH),
        "protocol": finished.protocol,
        "step": finished.step,
        "store": finished.store.fingerprint(),
        "knowledge_base": finished.store.kb.fingerprint(),
        "r": finished.setup.spec.r,
        "gold_slot": finished.setup.spec.gold_slot,
        "needs": list(finished.setup.spec.needs),
        "widths": {**widths, "width": finished.config.model.width},
        "edges": list(schema.RELATIONS),
        "symbols": {
            "b": "mentions",
            "r": "candidate slots",
            "s": "tokens of a mention's text",
            "q": "regions of a picture",
        },
        "inputs": {name: _spec(arrays[name]) for name in order if name in arrays},
        "output": _spec(exported.out_avals[0]),
        "parameters": {name: _spec(leaf) for name, leaf in params.items()},
    }


def _spec(array: Any) -> dict[str, Any]:
    shape = [size if isinstance(size, int) else str(size) for size in array.shape]
    return {"shape": shape, "dtype": str(array.dtype)}


def check(folder: Path) -> tuple[float, float, int]:
    """The largest difference of scores on fixed random batches, its limit, and how many scores.

    Raises:
        UserError: the export cannot be loaded, or its config is of another version of this program.
    """
    exported = scorer.load(folder)
    content, config = exported.manifest, read_config(folder)
    widths = {name: content["widths"][name] for name in ("text_width", "image_width")}
    model = jax.jit(
        score_function(
            lambda: build_model(config, **widths), content["gold_slot"], config.eval.pictures
        )
    )
    worst, count = 0.0, 0
    for sizes in SIZES:
        arrays = random_batch(content["inputs"], sizes)
        ours = exported.scores(arrays)
        theirs = np.asarray(model(exported.params, arrays))
        difference = np.nan_to_num(np.abs(ours - theirs), nan=np.inf)
        worst = max(worst, float(np.max(difference)))
        count += ours.size
    return worst, LIMITS[content["dtype"]], count


def random_batch(
    inputs: Mapping[str, Mapping[str, Any]], sizes: Mapping[str, int], seed: int = 0
) -> dict[str, np.ndarray]:
    """Arrays of these inputs: normal features, a fifth of all flags off, spans within the tokens.

    Args:
        inputs: of `export.json`.
        sizes: of each symbol in their shapes.
    """
    rng = np.random.default_rng(seed)

    def array(name: str, shape: list[int], dtype: str) -> np.ndarray:
        if dtype == "bool":
            return rng.random(shape) < 0.8
        if name == "mention_span":
            begin = rng.integers(0, sizes["s"], shape[0])
            return np.stack([begin, rng.integers(begin + 1, sizes["s"] + 1)], 1)
        if dtype == "int32":  # bytes of names, and padding
            return rng.integers(0, 257, shape)
        return rng.standard_normal(shape)

    return {
        name: array(name, [sizes.get(size, size) for size in of["shape"]], of["dtype"]).astype(
            of["dtype"]
        )
        for name, of in inputs.items()
    }
