"""The systems, by name. A new one is one file and one line here (docs/systems.md)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from data_pipeline.schema import check_known
from drin_jax.models.bert_matcher import BertMatcher
from drin_jax.models.drin import DRIN
from drin_jax.models.dzmned import DZMNED
from drin_jax.models.ghmfc import GHMFC
from drin_jax.models.jmel import JMEL
from drin_jax.models.mel_hi import MELHI
from drin_jax.models.relational import Relational
from drin_jax.types import CHOICES

# Each is built as cls(text_width, image_width, *, dtype, rngs, **fields), with those of the
# config's `model` and `graph` fields that its class lists in `fields`. `needs`, where it has it,
# tells what a batch holds for it beside the vertex features.
MODELS: dict[str, Any] = {
    "drin": DRIN,
    "relational": Relational,
    "bert": BertMatcher,
    "jmel": JMEL,
    "dzmned": DZMNED,
    "mel_hi": MELHI,
    "ghmfc": GHMFC,
}


def needs(name: str, image_width: int) -> tuple[str, ...]:
    """What the named system's batches must hold, of `schema.NEEDS`.

    Over a store without pictures (`image_width` 0) never "regions". UserError for an unknown name.
    """
    wanted: tuple[str, ...] = getattr(_class(name), "needs", ())
    return tuple(need for need in wanted if need != "regions" or image_width)


def is_random(name: str) -> bool:
    """Whether the named system takes random keys while it is trained."""
    return bool(getattr(_class(name), "random", False))


def build(
    name: str, text_width: int, image_width: int, *, dtype: str, rngs: nnx.Rngs, **fields: Any
) -> nnx.Module:
    """The named system over frozen features of these widths. Of `fields` it gets its own; those of
    other systems are ignored, as one config serves them all.

    Raises:
        UserError: an unknown name or choice, or a field that no system takes.
    """
    system = _class(name)
    known = sorted({field for each in MODELS.values() for field in each.fields})
    for field in fields:
        check_known("a field of a system", field, known)
    for field, value in {"dtype": dtype, **fields}.items():
        check_known(field, value, CHOICES.get(field, (value,)))
    own = {field: fields[field] for field in system.fields if field in fields}
    return system(text_width, image_width, dtype=jnp.dtype(dtype), rngs=rngs, **own)


def named(params: Any) -> dict[str, Any]:
    """Parameters, or what stands for them, by name: `layers.0.w_h.kernel`. A path's last key, that
    of the leaf that NNX adds below each parameter, is no part of it."""
    return {
        jax.tree_util.keystr(path[:-1], simple=True, separator="."): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def _class(name: str) -> Any:
    check_known("model.name", name, sorted(MODELS))
    return MODELS[name]
