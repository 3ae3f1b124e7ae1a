"""What the pipeline passes along: mentions, entities, and the feature store's array names.

Every key that appears in a file or a batch is spelled here, once.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

SCHEMA_VERSION = 3
SPLITS = ("train", "valid", "test")

# The graph's relations in the order of every `edges` axis: mention side, then entity side.
RELATIONS = ("tt", "tv", "vt", "vv")

_LIKENESS = ("trigrams", "ratio", "token_set_ratio", "is the name", "is first", "is last")
STAGES = ("names", "forms", "words", "vectors")  # of the union of candidates
BEYOND = 200  # the rank of what a stage did not find
LIFE, NEAR = 90.0, 25.0  # years that one name may be told of, and within which a number is near

# Relations beyond those -> their values (`data_pipeline.relations`), in the order of the last axis
# of a batch's `evidence`.
EVIDENCE: dict[str, tuple[str, ...]] = {
    "names": tuple(
        f"{kind} {value}" for kind in ("surface", "form") for value in (*_LIKENESS, "words fewer")
    ),
    "words": (
        *("words shared", "words shared, best", "name in the text", "name around"),
        "title in the text",
    ),
    "years": (
        *("age", "age, squared", "before its time", "after its time", "older than a life"),
        *("year named", "first year", "year known", "last year known"),
    ),
    "vectors": ("cosine", "cosine, best"),
    "pictures": tuple(f"{edge}{best}" for edge in ("tv", "vt", "vv") for best in ("", ", best")),
    "retrieval": (
        *(f"{value} by {stage}" for stage in STAGES for value in ("rank", "score")),
        *("score", "score, best", "place"),
    ),
    "votes": (
        *(
            f"{value} of the {kind}"
            for kind in ("surface", "form")
            for value in ("votes", "share", "others")
        ),
        "named in training",
    ),
    "exemplars": ("nearest exemplar, words", "nearest exemplar, vectors"),
    "neighbours": tuple(
        f"neighbours by {kernel}: {value}"
        for kernel in ("vectors", "words")
        for value in ("words", "vectors", "years")
    ),
    "association": ("association", "association, summed"),
    "context": tuple(
        f"beside it: {value}" for value in ("words", "vectors", "years", "is named", "name told")
    ),
}
# Those that read golds of training mentions, never of the mention's own component.
READ_GOLDS = ("votes", "exemplars", "neighbours", "association")
CUT = 4.0  # standard deviations from its mean beyond which a value is cut
# The values that are not known of a mention without a picture.
OF_OWN_PICTURE = ("vt", "vt, best", "vv", "vv, best")
# The relation of each value.
EVIDENCE_COLUMNS = tuple(name for name, values in EVIDENCE.items() for _ in values)

# Values of `gold_entity` (otherwise a row of the entity table).
NIL = -1
OUTSIDE_KB = -2

# Values of `gold` (otherwise a candidate slot) and of `candidates` (otherwise an entity's row).
NOT_RETRIEVED = -1
PADDING = -1


class UserError(Exception):
    """A mistake the user can mend, told in one line: what is wrong, where, and what to do.

    Names and texts from data may hold line breaks; they become spaces.
    """

    def __init__(self, message: str):
        super().__init__(" ".join(message.splitlines()))


PictureFile = str | bytes  # a picture's path, or what is in its file
Span = tuple[int, int] | None  # first and last+1 character of a mention; None: it does not occur


def differing(old: Mapping[str, Any], new: Mapping[str, Any], free: Iterable[str] = ()) -> str:
    """Which of these flat values differ, but for the `free` ones, and how: four at most."""
    names = [name for name in sorted({*old, *new} - {*free}) if old.get(name) != new.get(name)]
    told = [f"{name} {old.get(name)!r} -> {new.get(name)!r}" for name in names[:4]]
    return "; ".join([*told, "…"] if names[4:] else told)


def check_known(name: str, value: Any, known: Collection[str]) -> None:
    """UserError for a value of `name` that is none of those."""
    if value not in known:
        raise UserError(f"{name} is {value!r}; known are {', '.join(known)}")


def check_least(name: str, value: float, least: float) -> None:
    """UserError for a value of `name` that is less."""
    if not value >= least:
        raise UserError(f"{name} is {value}; it must be at least {least}")


def reason(error: Exception) -> str:
    """What a library's error says, fit for a line: its first one, or its kind where it is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


@dataclasses.dataclass(frozen=True, slots=True)
class Entity:
    """One entry of the knowledge base.

    `image` is the path of the picture that is shown and encoded, or None; `more_images` are others.
    `popularity` is any number that is larger for what is better known, None where nobody says.
    """

    id: str
    name: str
    description: str
    image: str | None = None
    aliases: tuple[str, ...] = ()
    type: str = ""
    popularity: float | None = None
    more_images: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Mention:
    """One mention to link.

    `start` and `end` are character offsets into `text` (end exclusive), or both None where the
    surface form does not occur in the text: such a mention is flagged, counted and represented by
    its sentence. `gold` is an entity id, or None for NIL. `candidates` are entity ids given by the
    data set, or None to retrieve them. `sample` groups mentions that share one text and picture.
    `kind` is a free label by which results are also reported ("" for none). `clean` is False where
    the published data hold a mention of another split with the same sample, text or picture.
    """

    id: str
    text: str
    name: str
    start: int | None
    end: int | None
    split: str
    sample: str
    gold: str | None
    image: str | None = None
    candidates: tuple[str, ...] | None = None
    kind: str = ""
    clean: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Corpus:
    """A whole data set in memory, as a reader returns it.

    `counts` holds what the reader found on the way (mentions not in their sentence, missing images,
    dropped samples, …) by a readable name. `sources` maps each file read to its SHA-256.
    """

    name: str
    entities: Sequence[Entity]
    mentions: list[Mention]
    counts: Mapping[str, int]
    sources: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class GraphSpec:
    """What a mention's graph holds.

    Args:
        r: candidates, the first of those retrieved; 0: all.
        gold_slot: append the gold entity as slot r of every graph (the leaking protocol); a mention
            without a gold entity has padding there. `gold` indexes the first r slots all the same.
        needs: of NEEDS, what a batch holds beside the vertex features.
    """

    r: int = 0
    gold_slot: bool = False
    needs: tuple[str, ...] = ()

    @property
    def slots(self) -> int:
        """Candidate slots of a batch's arrays: r, and one more with `gold_slot`."""
        return self.r + int(self.gold_slot)


# ---- the feature store -------------------------------------------------------------------------
#
# A store is one folder: `store.json` and one `.npy` file an array, opened memory-mapped. What is of
# entities lies in a knowledge base, its own or one that it refers to (`data_pipeline.kb`).
# Symbols: E entities, M mentions, N mentions of one split, r candidates, t text width, v image
# width, o width of an object's feature, c width of CLIP's embeddings.

STORE_JSON = "store.json"

# name -> (shape in symbols, dtype). Widths v, o and c may be 0: no pictures, no objects, no CLIP.
# Of the last three the edges are made: tv, vt and vv are plain dot products of two of their rows,
# and a row of zeros stands for what is missing.
ENTITY_ARRAYS = {
    "entity_text": ("E t", "float32"),  # vertex feature [3]
    "entity_text_edge": ("E t", "float32"),  # left side of R_tt [6]; not there: the vertices
    "entity_image": ("E v", "float32"),  # pooled vector [5]
    "entity_has_text": ("E", "bool"),
    "entity_has_image": ("E", "bool"),
    "entity_clip_text": ("E c", "float32"),  # CLIP's projected vectors at unit length [7] [8]
    "entity_clip_image": ("E c", "float32"),
    "entity_objects": ("E o", "float32"),  # score-weighted mean of the objects' unit vectors [11]
}
MENTION_ARRAYS = {
    "mention_text": ("M t", "float32"),  # vertex feature [2]
    "mention_text_edge": ("M t", "float32"),
    "mention_image": ("M v", "float32"),
    "mention_has_text": ("M", "bool"),
    "mention_has_image": ("M", "bool"),
    "mention_clip_text": ("M c", "float32"),
    "mention_clip_image": ("M c", "float32"),
    "mention_objects": ("M o", "float32"),
}
# Stored under "{split}_{name}".
SPLIT_ARRAYS = {
    "mention": ("N", "int32"),  # row of the mention table
    "candidates": ("N r", "int32"),  # rows of the entity table, PADDING where there is none
    "retrieval_score": ("N r", "float32"),
    "gold": ("N", "int32"),  # candidate slot, or NOT_RETRIEVED
    "gold_entity": ("N", "int32"),  # row of the entity table, NIL or OUTSIDE_KB
    "edges": ("N 4 r", "float32"),  # initial edges in the order of RELATIONS, 0 where undefined
    "gold_edges": ("N 4", "float32"),  # to the gold: read under the leaking protocol only
    "groups": ("N", "uint32"),  # bit i set: the mention belongs to group i of store.json's "groups"
}
# What the union of first stages (`data_pipeline.retrieval.union`) found, by each of its s stages.
UNION_ARRAYS = {
    "retrieval_rank": ("N r s", "int32"),  # place of the candidate, PADDING where it found it not
    "retrieval_evidence": ("N r s", "float32"),
}
# What some systems need beside that (`NEEDS`): in a store only where it was asked for. T tokens of
# all mentions one after another (CLS and SEP included), P unique mention pictures, q regions.
TOKEN_ARRAYS = {
    "mention_tokens": ("T t", "float32"),  # the text encoder's last layer
    "mention_token_offsets": ("M+1", "int64"),
    "mention_span": ("M 2", "int32"),  # first and last+1 token of the mention, CLS counted
}
REGION_ARRAYS = {
    "mention_regions": ("P q v", "float32"),  # the image encoder's last map
    "mention_region_row": ("M", "int32"),  # row of `mention_regions`, or PADDING
}
# What `data_pipeline.relations` knows of each candidate, k values standardised by `evidence_scale`,
# their mean and their spread.
EVIDENCE_ARRAYS = {
    **{f"{split}_evidence": (f"N_{split} r k", "float16") for split in SPLITS},
    "evidence_scale": ("2 k", "float32"),
}
# What a system may need beside the vertex features; names are read from the tables of strings.
NEEDS = ("tokens", "regions", "characters", "evidence")
NEEDED_ARRAYS = {
    **{"tokens": TOKEN_ARRAYS, "regions": REGION_ARRAYS, "characters": {}},
    "evidence": EVIDENCE_ARRAYS,
}
MOST_KINDS = 29  # labels that results are reported by, beside three groups; a bit each
MAX_PIXELS = 178_956_970  # of a picture: where Pillow, too, takes it for a decompression bomb
MAX_BYTES = 1_000_000_000  # of memory to decode a picture
# Of a text's token vectors: the mean over its mention, that of CLS, the mean of all, of all but CLS
# and SEP, and what BERT's own pooler makes of CLS.
POOLINGS = ("span", "cls", "mean", "inner", "pooler")
MAX_TOKENS = 128  # of a mention's text at most; longer ones are cut around the mention
CHARACTERS = 32  # of a name that a system reads, at most: UTF-8 bytes plus 1, 0 is padding

# Tables of strings: "{name}_bytes" [total] uint8 (UTF-8) and "{name}_offsets" [n+1] int64.
STRING_TABLES = ("mention_id", "mention_surface")

# An array that is not there is the same as the other.
SAME_AS = {"entity_text_edge": "entity_text", "mention_text_edge": "mention_text"}
# Those that a store may do without.
OPTIONAL_ARRAYS = {*SAME_AS, *TOKEN_ARRAYS, *REGION_ARRAYS, *EVIDENCE_ARRAYS}
OPTIONAL_ARRAYS |= {f"{split}_{name}" for split in SPLITS for name in UNION_ARRAYS}


def _templates() -> dict[str, tuple[tuple[str, ...], str]]:
    tables = {**ENTITY_ARRAYS, **MENTION_ARRAYS, **TOKEN_ARRAYS, **REGION_ARRAYS}
    tables |= EVIDENCE_ARRAYS
    for split in SPLITS:
        for name, (shape, dtype) in {**SPLIT_ARRAYS, **UNION_ARRAYS}.items():
            tables[f"{split}_{name}"] = (shape.replace("N", f"N_{split}"), dtype)
    for name in STRING_TABLES:
        tables[f"{name}_bytes"] = (f"bytes_{name}", "uint8")
        tables[f"{name}_offsets"] = ("M+1", "int64")
    return {name: (tuple(shape.split()), dtype) for name, (shape, dtype) in tables.items()}


# Every array that a store may have: name -> (symbols of its shape, dtype).
TEMPLATES = _templates()

# Groups every store may report apart, beside "kind:<label>" from the mentions themselves.
GROUP_CLEAN = "clean"  # shares no sample, sentence or picture with a mention of another split
GROUP_UNSEEN = "unseen_entity"  # its gold occurs as gold in no training mention
GROUP_NO_SPAN = "span_not_found"


def batch_shapes(
    b: int,
    r: int,
    t: int,
    v: int,
    needs: Collection[str] = (),
    s: int = 0,
    q: int = 49,
    c: int = CHARACTERS,
    k: int = len(EVIDENCE_COLUMNS),
) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shapes and dtypes of one host batch: what the loader yields and `types.GraphBatch` holds.

    With `needs`, of NEEDS, also tokens [s], regions [q], characters [c] and evidence [k].
    """
    extra: dict[str, dict[str, tuple[tuple[int, ...], str]]] = {
        "tokens": {
            "mention_tokens": ((b, s, t), "float32"),
            "mention_token_mask": ((b, s), "bool"),
            "mention_span": ((b, 2), "int32"),
        },
        "regions": {"mention_regions": ((b, q, v), "float32")},
        "characters": {
            "mention_characters": ((b, c), "int32"),
            "entity_characters": ((b, r, c), "int32"),
        },
        "evidence": {"evidence": ((b, r, k), "float32")},
    }
    wanted = {name: shape for need in needs for name, shape in extra[need].items()}
    return wanted | {
        "mention_text": ((b, t), "float32"),
        "mention_image": ((b, v), "float32"),
        "entity_text": ((b, r, t), "float32"),
        "entity_image": ((b, r, v), "float32"),
        "edges": ((b, 4, r), "float32"),
        "mention_has_text": ((b,), "bool"),
        "mention_has_image": ((b,), "bool"),
        "entity_has_text": ((b, r), "bool"),
        "entity_has_image": ((b, r), "bool"),
        "candidate_mask": ((b, r), "bool"),  # the slot holds a candidate
        "gold": ((b,), "int32"),  # slot of the gold, or NOT_RETRIEVED
        "mask": ((b,), "bool"),  # a real mention, not padding of the last batch
    }
