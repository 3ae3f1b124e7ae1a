"""Stage one beyond names: how often a surface form meant an entity in training, words that the
sentence and the entity's text share, and likeness of names, in one weighted sum.

For a mention m and an entity e,

    score(m, e) = w_name * name(m, e) + w_prior * P(e | surface of m) + w_words * words(m, e)

* name: a rapidfuzz scorer of surface form and name, 0 to 1, as `retrieval.by_name` has it.
* P: votes for e / (votes for any entity + smoothing). Votes are the training mentions of the same
  surface form (case folded) with their golds. No mention of the same sample or of the same text
  votes, so a training mention never votes for itself and its graph is made as one of test. Where
  nobody votes, P is 0 and names and words decide.
* words: BM25 over the unique words of sentence and of the entity's name and description, 0 to 1
  (below).

Only the pool of a mention is scored: the best by name, the best by words, and those voted for.

    words(text, e) = Σ_{w in both} idf(w) g(e) / (g_max Σ_{w in text} idf(w))
    idf(w) = log(1 + (E - E_w + 0.5) / (E_w + 0.5))                     E_w entities have w
    g(e) = (1 + k) / (1 + k (1 - b + b length(e) / mean length))        g_max: at length 0

Words are runs of letters and digits, case folded.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from rapidfuzz.utils import default_process
from scipy import sparse

from data_pipeline.output import Progress
from data_pipeline.retrieval.names import Candidates, by_name, check, largest, likeness
from data_pipeline.schema import PADDING, Corpus, Mention, UserError
from data_pipeline.store.split_arrays import distinct

VOTED_POOL = 50  # most entities a surface form brings in by votes
CHUNK_PAIRS = 100_000  # mention and entity pairs scored at once, some 50 MB
# BM25's k and b: how much an entity's length counts, and how much it is held against it.
SATURATION, LENGTH = 1.2, 0.25

# Words of more than this share of the entities find nobody (they still count in the score): their
# posting lists would be most of the work.
COMMON = 0.05
PRODUCTS = 20_000_000  # postings read at once, 12 bytes each
QUIET_MENTIONS = 10_000  # fewer are a matter of seconds: they go without a word


@dataclasses.dataclass(frozen=True)
class Weights:
    """What counts how much; none below 0. The values were chosen on WikiMEL's valid split.

    `smoothing` is in votes: of one vote alone P is 1 / (1 + smoothing).
    """

    name: float = 1.0
    prior: float = 0.2
    words: float = 0.5
    smoothing: float = 1.0


def by_statistics(
    corpus: Corpus,
    r: int,
    *,
    weights: Weights = Weights(),
    names_pool: int = 100,
    words_pool: int = 100,
    scorer: str = "WRatio",
    cache_dir: Path | None = None,
) -> Candidates:
    """The r best entities of each of `corpus.mentions` by the sum above.

    Ties are in the order of the entities. Memory does not grow with the product of mentions and
    entities: the postings of a block of mentions and the pairs of a block are bounded.

    Args:
        corpus: votes come from its training mentions whose gold is in the knowledge base.
        r: candidates of a mention.
        weights: of the three features.
        names_pool: entities that names bring into the pool, at least r; 0 leaves the comparison
            with every name out, which is by far the longest part (a row may then end early).
        words_pool: entities that shared words bring into the pool; may be 0.
        scorer: a key of `retrieval.SCORERS`.
        cache_dir: where `by_name` keeps its result.

    Returns:
        rows [N,r] int32, PADDING behind the last, and scores [N,r] float32, falling, 0 at padding.

    Raises:
        UserError: unknown scorer, r < 1, a pool below 0, both 0, or weights that cannot rank.
    """
    check(r, scorer)
    _check(weights, names_pool, words_pool)
    mentions, entities = corpus.mentions, corpus.entities
    names = [entity.name for entity in entities]
    surfaces = [mention.name for mention in mentions]
    by_names = np.zeros((len(mentions), 0), np.int32)
    if names_pool:
        width = max(names_pool, r)
        by_names = by_name(names, surfaces, width, scorer=scorer, cache_dir=cache_dir)[0]
    rows = np.full((len(mentions), r), PADDING, np.int32)
    scores = np.zeros((len(mentions), r), np.float32)
    if not entities or not mentions:
        return rows, scores

    def watch(title: str, amount: str) -> Progress:
        amount, loud = f"{len(mentions)} mentions x {amount}", len(mentions) > QUIET_MENTIONS
        return Progress(title, len(mentions), unit="mentions", amount=amount, loud=loud)

    with watch("candidates by shared words", f"{len(entities)} entities") as bar:
        words = Words([f"{e.name} {e.description}" for e in entities], [m.text for m in mentions])
        by_words = words.best(words_pool, bar.advance)
    votes = Votes(corpus)
    processed = np.array([default_process(name) for name in names], object)
    queries = np.array([default_process(surface) for surface in surfaces], object)
    step = max(1, CHUNK_PAIRS // (by_names.shape[1] + words_pool + 1))
    amount = f"up to {by_names.shape[1] + words_pool} of their pool"
    with watch("candidates by statistics", amount) as bar:
        for start in range(0, len(mentions), step):
            block = np.arange(start, min(start + step, len(mentions)))
            prior = [votes.prior(mentions[i], weights.smoothing) for i in block]
            mine, pool = _pool(by_names[block], by_words[words.text_of[block]], prior)
            alike = likeness(queries[block[mine]], processed[pool], scorer)
            voted = [
                prior[i].get(e, 0.0) for i, e in zip(mine.tolist(), pool.tolist(), strict=True)
            ]
            score = (
                weights.name * alike / 100
                + weights.prior * np.array(voted, np.float32)
                + weights.words * words.overlap(block[mine], pool)
            ).astype(np.float32)
            _place(rows, scores, block[mine], pool, score)
            bar.advance(len(block))
    return rows, scores


def _check(weights: Weights, names_pool: int, words_pool: int) -> None:
    for name, value in dataclasses.asdict(weights).items():
        if not (math.isfinite(value) and value >= 0):
            raise UserError(f"retrieval weight {name} = {value} must be a number of at least 0")
    if not weights.name + weights.prior + weights.words:
        raise UserError("retrieval weights name, prior and words are all 0; set one above 0")
    if min(names_pool, words_pool) < 0 or not names_pool + words_pool:
        raise UserError(
            f"retrieval pools of {names_pool} names and {words_pool} words; "
            "neither may be below 0 and one must be above"
        )


def _pool(
    by_names: np.ndarray, by_words: np.ndarray, prior: Sequence[Mapping[int, float]]
) -> tuple[np.ndarray, np.ndarray]:
    """Each pair once: position in the block and entity row, ordered by both."""
    n, columns = len(prior), np.concatenate([by_names, by_words], axis=1)
    mine = np.repeat(np.arange(n), columns.shape[1])
    voted = [(i, row) for i, found in enumerate(prior) for row in found]
    extra = np.array(voted, np.int64).reshape(-1, 2)
    pairs = np.stack([np.append(mine, extra[:, 0]), np.append(columns.ravel(), extra[:, 1])])
    keys = np.unique((pairs[0] << 32 | pairs[1])[pairs[1] != PADDING])
    return keys >> 32, keys & 0xFFFFFFFF


def _place(
    rows: np.ndarray, scores: np.ndarray, mention: np.ndarray, pool: np.ndarray, score: np.ndarray
) -> None:
    """The best of each mention's pool into its row; pairs come ordered by mention."""
    order = np.lexsort((pool, -score, mention))
    mention, pool, score = mention[order], pool[order], score[order]
    first = np.searchsorted(mention, mention, side="left")
    rank = np.arange(len(mention)) - first
    kept = rank < rows.shape[1]
    rows[mention[kept], rank[kept]] = pool[kept]
    scores[mention[kept], rank[kept]] = score[kept]


class Votes:
    """Golds of training mentions by surface form."""

    def __init__(self, corpus: Corpus) -> None:
        row_of = {entity.id: row for row, entity in enumerate(corpus.entities)}
        self._entities: dict[str, dict[int, None]] = {}
        self._counts: Counter[tuple] = Counter()
        for mention in corpus.mentions:
            if mention.split == "train" and mention.gold in row_of:
                row = row_of[mention.gold]
                self._entities.setdefault(_surface(mention), {})[row] = None
                self._counts.update(_traces(mention, row))

    def prior(self, mention: Mention, smoothing: float) -> dict[int, float]:
        """P by entity row, of the VOTED_POOL entities with most votes.

        Votes of the same sample or the same text are taken off: those of the sample, and of the
        text, and back those that were taken off twice.
        """
        votes = {}
        for row in self._entities.get(_surface(mention), ()):
            total, sample, text, both = (self._counts[trace] for trace in _traces(mention, row))
            if counted := total - sample - text + both:
                votes[row] = counted
        whole = sum(votes.values()) + smoothing
        best = sorted(votes, key=lambda row: (-votes[row], row))[:VOTED_POOL]
        return {row: votes[row] / whole for row in best}


def _surface(mention: Mention) -> str:
    return " ".join(mention.name.casefold().split())


def _traces(mention: Mention, row: int) -> Iterator[tuple]:
    surface = _surface(mention)
    yield surface, row
    yield surface, row, "sample", mention.sample
    yield surface, row, "text", mention.text
    yield surface, row, "both", mention.sample, mention.text


class Words:
    """Which words entities and texts share, as sparse matrices.

    Attributes:
        text_of: [N] the distinct text of each given one.
    """

    def __init__(self, entities: Sequence[str], texts: Sequence[str]) -> None:
        vocabulary: dict[str, int] = {}
        have = _incidence(entities, vocabulary, grow=True)
        unique, self.text_of = distinct(texts)
        self._asked = _incidence(unique, vocabulary, grow=False)
        length = np.diff(have.indptr).astype(np.float32)
        longer = length / max(float(length.mean()), 1.0)
        gain = (1 + SATURATION) / (1 + SATURATION * (1 - LENGTH + LENGTH * longer))
        documents = np.bincount(have.indices, minlength=len(vocabulary))
        rarity = np.log1p((len(entities) - documents + 0.5) / (documents + 0.5)).astype(np.float32)
        have.data = np.repeat(gain, np.diff(have.indptr)) * rarity[have.indices]
        self._weights = have
        self._common = documents > max(1.0, COMMON * len(entities))
        self._documents = documents
        best = (1 + SATURATION) / (1 + SATURATION * (1 - LENGTH))
        self._attainable = np.maximum(self._asked @ rarity * best, 1e-6)

    def best(self, width: int, advance: Callable[[int], None]) -> np.ndarray:
        """The `width` entities that share most with each distinct text, [texts,width] int32,
        PADDING where fewer share a word that is not common; ties in the order of the entities.

        Args:
            advance: told how many of the given texts were done, after each block.
        """
        out = np.full((self._asked.shape[0], width), PADDING, np.int32)
        if not width:
            return out
        rare = sparse.diags_array((~self._common).astype(np.float32))
        asked = sparse.csr_array(self._asked @ rare)
        asked.eliminate_zeros()
        postings = sparse.csr_array(self._weights.T)
        cost = np.append(0, np.cumsum(asked @ self._documents))
        given = np.bincount(self.text_of, minlength=len(out))
        start = 0
        while start < len(out):
            stop = int(np.searchsorted(cost, cost[start] + PRODUCTS, side="right")) - 1
            stop = max(stop, start + 1)
            found = sparse.csr_array(asked[start:stop] @ postings)
            found.sort_indices()
            for i in np.flatnonzero(np.diff(found.indptr)):
                own = slice(found.indptr[i], found.indptr[i + 1])
                rows = found.indices[own]
                best, _ = largest(found.data[None, own], min(width, len(rows)))
                out[start + i, : best.shape[1]] = rows[best[0]]
            advance(int(given[start:stop].sum()))
            start = stop
        return out

    def overlap(self, mention: np.ndarray, entity: np.ndarray) -> np.ndarray:
        """The feature of each pair, [pairs] float32, 0 to 1."""
        text = self.text_of[mention]
        shared = self._asked[text].multiply(self._weights[entity])
        return np.asarray(shared.sum(axis=1)).ravel() / self._attainable[text]


def _incidence(texts: Sequence[str], vocabulary: dict[str, int], grow: bool) -> sparse.csr_array:
    """[texts,words] with a 1 for each word of a text; `grow` lets new words into the vocabulary."""
    columns: list[int] = []
    starts = [0]
    for text in texts:
        found = dict.fromkeys(re.findall(r"\w+", text.casefold()))
        if grow:
            columns += [vocabulary.setdefault(word, len(vocabulary)) for word in found]
        else:
            columns += [vocabulary[word] for word in found if word in vocabulary]
        starts.append(len(columns))
    ones = np.ones(len(columns), np.float32)
    shape = (len(texts), len(vocabulary))
    matrix = sparse.csr_array((ones, np.array(columns, np.int32), np.array(starts)), shape=shape)
    matrix.sort_indices()
    return matrix
