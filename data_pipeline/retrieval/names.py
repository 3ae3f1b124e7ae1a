"""Stage one: a few candidates for each mention, by likeness of names or as the data set gives them.

Both ways return `rows [N,r] int32`, rows of the entity list with PADDING where there are fewer than
r, and `scores [N,r] float32`, falling along a row, 0 at padding.

Names are matched in full: on WikiMEL a pair costs about 1 µs of one core in any dtype, and a cutoff
at the r-th best score, were it known, would save only a fifth of it.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import rapidfuzz
from rapidfuzz import fuzz, process
from rapidfuzz.utils import default_process

from data_pipeline.files import write_whole
from data_pipeline.output import Progress
from data_pipeline.schema import PADDING, Corpus, UserError, check_known, check_least
from data_pipeline.store.split_arrays import distinct

SCORERS = {
    scorer.__name__: scorer
    for scorer in (
        *(fuzz.WRatio, fuzz.QRatio, fuzz.ratio, fuzz.partial_ratio, fuzz.token_sort_ratio),
        *(fuzz.token_set_ratio, fuzz.token_ratio, fuzz.partial_token_ratio),
    )
}

CACHE_VERSION = 1
CHUNK_PAIRS = 4_000_000  # pairs scored at once: some seconds, 16 MB of scores, 80 MB in all
FEW_PAIRS = 10_000  # that are compared sooner than threads begin
QUIET_PAIRS = 5_000_000  # about 5 s on one core: less work than this goes without a word

Candidates = tuple[np.ndarray, np.ndarray]

_log = logging.getLogger(__name__)


def by_name(
    names: Sequence[str],
    queries: Sequence[str],
    r: int,
    *,
    scorer: str = "WRatio",
    cache_dir: Path | None = None,
) -> Candidates:
    """The r names most like each query, by a rapidfuzz scorer.

    Names and queries are compared in lower case, with all but letters and digits made spaces
    (rapidfuzz's `default_process`). Scores are 0 to 100. Ties are in the order of `names`, so
    nothing in the result depends on chunks or threads.
    A query without a letter or digit scores 0 everywhere and gets the first r names.

    Args:
        names: of the N_E entities, in the order of the knowledge base.
        queries: surface forms, N of them.
        r: candidates of a query; where there are fewer entities, the row ends in PADDING.
        scorer: a key of SCORERS.
        cache_dir: folder for results, found again by a hash of all of the above and of rapidfuzz's
            version. A damaged file there is computed again, with a warning. None: no cache.

    Returns:
        rows [N,r] int32 and scores [N,r] float32.

    Raises:
        UserError: unknown scorer, r < 1, or a cache folder that cannot be made.
    """
    check(r, scorer)
    unique, index = distinct(map(default_process, queries))
    processed = [default_process(name) for name in names]
    if cache_dir is None:
        rows, scores = _best(processed, unique, r, scorer)
    else:
        rows, scores = _cached(Path(cache_dir), processed, unique, r, scorer)
    return rows[index], scores[index]


def of_pairs(
    names: Sequence[str], queries: Sequence[str], rows: np.ndarray, scorer: str = "WRatio"
) -> np.ndarray:
    """How like each query is to the names in its row, as `by_name` scores them.

    Args:
        rows: [N,r] rows of `names`, PADDING for none.

    Returns:
        [N,r] float32, 0 at padding.
    """
    check(1, scorer)
    asked = np.array([default_process(query) for query in queries], object)
    processed = np.array([default_process(name) for name in names], object)
    out = np.zeros(rows.shape, np.float32)
    step = max(1, CHUNK_PAIRS // max(rows.shape[1], 1))
    for start in range(0, len(rows), step):
        there = np.nonzero(rows[start : start + step] != PADDING)
        others = processed[rows[start : start + step][there]]
        out[start : start + step][there] = likeness(asked[start + there[0]], others, scorer)
    return out


def likeness(queries: np.ndarray, names: np.ndarray, scorer: str) -> np.ndarray:
    """How like each query is to the name beside it, both processed: [n] float32, 0 to 100."""
    workers = -1 if len(names) > FEW_PAIRS else 1
    return process.cpdist(queries, names, scorer=SCORERS[scorer], dtype=np.float32, workers=workers)


def given(corpus: Corpus, r: int) -> tuple[np.ndarray, np.ndarray, Mapping[str, int]]:
    """The data set's own candidates of `corpus.mentions`, the first r of each, in their order.

    Ids outside the knowledge base and repeated ids are dropped and counted. The data give no
    scores: a candidate at rank i (from 0) scores r - i.

    Returns:
        rows [N,r] int32, scores [N,r] float32, counts.

    Raises:
        UserError: r < 1, or a mention without candidates of its own.
    """
    check(r)
    row_of = {entity.id: row for row, entity in enumerate(corpus.entities)}
    rows = np.full((len(corpus.mentions), r), PADDING, np.int32)
    counts = {"candidates_outside_kb": 0, "candidates_repeated": 0}
    for i, mention in enumerate(corpus.mentions):
        if mention.candidates is None:
            raise UserError(
                f"{corpus.name}: mention {mention.id!r} comes without candidates; "
                'set retrieval.method = "names"'
            )
        unique = dict.fromkeys(mention.candidates)
        found = [row_of[entity] for entity in unique if entity in row_of]
        counts["candidates_repeated"] += len(mention.candidates) - len(unique)
        counts["candidates_outside_kb"] += len(unique) - len(found)
        rows[i, : len(found)] = found[:r]
    ranked = np.arange(r, 0, -1, dtype=np.float32)
    return rows, np.where(rows == PADDING, np.float32(0), ranked), counts


def check(r: int, scorer: str = "WRatio") -> None:
    """UserError unless there is a candidate to find, and rapidfuzz has the scorer."""
    check_known("retrieval.scorer", scorer, SCORERS)
    check_least("retrieval.r", r, 1)


def _best(names: Sequence[str], queries: Sequence[str], r: int, scorer: str) -> Candidates:
    """`by_name` of processed, distinct queries."""
    rows = np.full((len(queries), r), PADDING, np.int32)
    scores = np.zeros((len(queries), r), np.float32)
    width = min(r, len(names))
    if not width or not len(queries):
        return rows, scores
    unique, columns = distinct(names)
    step = max(1, CHUNK_PAIRS // len(names))
    amount = f"{len(queries)} distinct mentions x {len(names)} names"
    loud = len(queries) * len(names) > QUIET_PAIRS
    title, unit = "candidates by name", "mentions"
    with Progress(title, len(queries), unit=unit, amount=amount, loud=loud) as bar:
        for start in range(0, len(queries), step):
            block = slice(start, start + step)
            found = process.cdist(
                queries[block], unique, scorer=SCORERS[scorer], dtype=np.float32, workers=-1
            )
            if len(unique) < len(names):
                found = found[:, columns]
            rows[block, :width], scores[block, :width] = largest(found, width)
            bar.advance(len(found))
    return rows, scores


def largest(likeness: np.ndarray, width: int) -> Candidates:
    """Columns and values of the `width` largest in each row of likeness [n,m], ties in their order.

    One integer holds score and column, so that all keys differ and a partition is exact: the bits
    of a float that is not negative sort as the float does.
    """
    last = likeness.shape[1] - 1
    keys = likeness.view(np.uint32).astype(np.uint64) << np.uint64(32)
    keys |= np.arange(last, -1, -1, dtype=np.uint64)
    keys.partition(last + 1 - width, axis=1)
    best = np.sort(keys[:, last + 1 - width :], axis=1)[:, ::-1]
    columns = last - (best & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return columns.astype(np.int32), (best >> np.uint64(32)).astype(np.uint32).view(np.float32)


def _cached(
    folder: Path, names: Sequence[str], queries: Sequence[str], r: int, scorer: str
) -> Candidates:
    question = [CACHE_VERSION, rapidfuzz.__version__, scorer, r, list(names), list(queries)]
    key = hashlib.sha256(json.dumps(question).encode()).hexdigest()
    path = folder / f"names-{key[:32]}.npz"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cache folder {folder} cannot be made: {error.strerror}") from None
    if path.exists():
        kept = _load(path, key, (len(queries), r), len(names))
        if kept is not None:
            return kept
        _log.warning("%s is damaged or not ours: computing the candidates again", path)
    rows, scores = _best(names, queries, r, scorer)
    content = {"key": np.array(key), "rows": rows, "scores": scores}
    try:
        write_whole(path, lambda file: np.savez(file, allow_pickle=False, **content))
    except UserError as error:
        _log.warning("%s: going on without it", error)
    return rows, scores


def _load(path: Path, key: str, shape: tuple[int, int], entities: int) -> Candidates | None:
    """The arrays of a cache file, or None where it is not whole and ours (zip checks its sums)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            rows, scores, found = file["rows"], file["scores"], str(file["key"])
    except Exception:  # whatever a foreign file makes NumPy raise, the answer is to compute again
        return None
    layout = (rows.shape, rows.dtype, scores.shape, scores.dtype)
    ours = found == key and layout == (shape, np.int32, shape, np.float32)
    return (rows, scores) if ours and ((rows >= PADDING) & (rows < entities)).all() else None
