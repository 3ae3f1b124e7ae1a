"""Names, words and vectors of a knowledge base, searched by the PostgreSQL server that has it.

Names are compared as `folded_names` folds them, by the mean of pg_trgm's similarity (trigrams that
both have, of all that either has) and word_similarity (of the name's, those of one stretch of the
other); what goes by these initials is found beside that. Descriptions are found by their rarer
words, scored as BM25 does where each word counts once. Vectors are searched by
pgvector's HNSW index, which may miss a few; those of tables without one are all compared.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from data_pipeline.kb.folded_names import LONGEST, fold, forms, initials, shortened
from data_pipeline.kb.knowledge_base import PIECE, Found, KnowledgeBase
from data_pipeline.kb.postgres_server import Server
from data_pipeline.kb.text_index import COMMON, RAREST
from data_pipeline.schema import PADDING, SAME_AS

SEARCHED = "entity_text_edge"  # the table that vectors are searched in
WIDEST = {"vector": 2000, "halfvec": 4000}  # that an index of pgvector takes
INITIALS = 0.7  # similarity of a name that goes by these initials
WORD = 40  # characters of a word that counts
WORDS = 5000  # that count of a description
BUDGET = 2000  # rows whose words are compared with a text's
K1, B = 1.2, 0.75  # of BM25
_QUOTED = re.compile(r"[\\']")


def found_by(name: str, aliases: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """(form, whether it is initials) of an entity, no one twice."""
    own = forms(name, aliases)
    yield from ((form, False) for form in own)
    yield from dict.fromkeys((short, True) for form in own for short in initials(form))


def words_of(text: str) -> list[str]:
    """The words of a text that count, no one twice."""
    found = dict.fromkeys(word for word in fold(text).split() if len(word) <= WORD)
    return list(found)[:WORDS]


def described(name: str, description: str) -> list[str]:
    """The words that an entity is found by, no one twice."""
    return words_of(f"{name[:LONGEST]} {description}")


def vector_type(width: int) -> str:
    """pgvector's type for rows so wide; empty where it can index none."""
    return next((name for name, widest in WIDEST.items() if 0 < width <= widest), "")


class PostgresFinder:
    """Finds living rows of an open knowledge base. Threads may share it.

    Args:
        table: gives the name of a table in SQL.
    """

    def __init__(self, kb: KnowledgeBase, server: Server, table: Callable[[str], str]):
        self._kb, self._server, self._table = kb, server, table
        self._average = 0.0  # words of a description

    def _best(self, n: int, asked: Callable[[int], tuple[str, tuple[object, ...]]]) -> Found:
        """The n best of a query's (row, score), which `asked` makes for a number of rows."""
        limit = n
        while True:
            query, given = asked(limit)
            hits = self._server.ask(query, *given)
            rows = np.array([row for row, _ in hits], np.int64)
            scores = np.array([score for _, score in hits], np.float32)
            kept = rows < len(self._kb)  # rows that came later are not in this generation
            kept[kept] = self._kb.alive[rows[kept]]
            rows, scores = rows[kept][:n], scores[kept][:n]
            if len(rows) == n or len(hits) < limit:
                return rows, scores
            limit *= 4

    def names(self, name: str, n: int) -> Found:
        """As `TextIndex.names`, but for the scores: similarities from 0 to 1."""
        form, table = fold(name[:LONGEST]), self._table("form")
        if not form:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        query = f"""
            SELECT row, max(score) FROM (
              SELECT row, (similarity(%s, form) + word_similarity(%s, form)) / 2 AS score
              FROM {table} WHERE %s <%% form AND NOT initials
              UNION ALL
              SELECT row, {INITIALS}::real FROM {table} WHERE form = %s AND initials
            ) AS found GROUP BY row ORDER BY 2 DESC, 1 LIMIT %s"""
        return self._best(n, lambda limit: (query, (form,) * 3 + (shortened(form), limit)))

    def words(self, text: str, n: int) -> Found:
        """As `TextIndex.words`."""
        table, counts = self._table("words"), self._table("word")
        query = f"SELECT documents, word FROM {counts} WHERE word = ANY(%s::text[])"
        there = sorted(self._server.ask(query, words_of(text)))
        total = len(self._kb)
        rare = [one for one in there if one[0] <= COMMON * max(total, 20)][:RAREST] or there[:1]
        if not rare:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        # The commonest of them only order what the others find, where that is enough.
        ends = np.cumsum([count for count, _ in rare])
        asked = rare[: max(1, int(np.searchsorted(ends, BUDGET, side="right")))]
        score, given = [], []
        for count, word in rare:
            score.append("(words @@ %s::tsquery)::int * %s::float8")
            others = max(total - count, 0)  # of rows that came later, too, it is counted
            given += [_lexeme(word), math.log(1 + (others + 0.5) / (count + 0.5))]
        query = f"""
            SELECT row, ({" + ".join(score)}) * {K1 + 1}
              / (1 + {K1} * ({1 - B} + {B} * length(words) / %s)) AS score
            FROM {table} WHERE words @@ %s::tsquery ORDER BY 2 DESC, 1 LIMIT %s"""
        given += [self._average_words(), " | ".join(_lexeme(word) for _, word in asked)]
        return self._best(n, lambda limit: (query, (*given, limit)))

    def _average_words(self) -> float:
        if not self._average:
            query = f"SELECT sum(documents)::float8 FROM {self._table('word')}"
            self._average = max(self._server.ask(query)[0][0] / len(self._kb), 1.0)
        return self._average

    def knows(self, form: str) -> bool:
        """As `TextIndex.knows`."""
        query = f"SELECT row FROM {self._table('form')} WHERE form = %s AND NOT initials"
        found = [row for (row,) in self._server.ask(query, form)] if form else []
        return any(row < len(self._kb) and self._kb.alive[row] for row in found)

    def nearest(self, name: str, queries: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        """The n living rows of a table of features whose vectors point most nearly where each
        query's does: rows [q,n] int32, best first, PADDING where there are no more, and cosines
        [q,n] float32, 0 at padding. Rows of zeros are not found.

        Args:
            queries: [q,d] float32.
        """
        table = self._kb.array(name)
        own, searched = (
            one if one in self._kb.tables else SAME_AS.get(one, one) for one in (name, SEARCHED)
        )
        kind = vector_type(table.shape[1])
        if own != searched or not kind:
            return self._compared(table, queries, n)
        rows = np.full((len(queries), n), PADDING, np.int32)
        cosines = np.zeros((len(queries), n), np.float32)
        query = f"""
            SELECT row, 1 - (vector <=> %s::{kind}) FROM {self._table(own)}
            ORDER BY vector <=> %s::{kind} LIMIT %s"""
        for i, one in enumerate(unit(queries).tolist()):
            if any(one):
                found = self._best(n, lambda limit, v=str(one): (query, (v, v, limit)))  # type: ignore[misc]
                there = np.isfinite(found[1])
                rows[i, : there.sum()], cosines[i, : there.sum()] = found[0][there], found[1][there]
        return rows, cosines

    def _compared(
        self, table: np.ndarray, queries: np.ndarray, n: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same of every row, in float32."""
        rows = np.full((len(queries), n), PADDING, np.int64)
        best = np.full((len(queries), n), -np.inf, np.float32)
        asked = unit(queries)
        for begin in range(0, len(table), PIECE):
            keys = unit(table[begin : begin + PIECE])
            cosine = asked @ keys.T
            there = self._kb.alive[begin : begin + PIECE] & keys.any(1)
            cosine[:, ~there] = -np.inf
            own = np.broadcast_to(np.arange(begin, begin + len(keys)), cosine.shape)
            every, values = np.hstack([rows, own]), np.hstack([best, cosine])
            order = np.argsort(-values, axis=1, kind="stable")[:, :n]
            rows, best = (np.take_along_axis(some, order, 1) for some in (every, values))
        found = np.isfinite(best)
        return np.where(found, rows, PADDING).astype(np.int32), np.where(found, best, np.float32(0))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows [n,d] at length 1; zeros stay."""
    x = vectors.astype(np.float64)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return (x / np.where(norm > 0, norm, 1)).astype(np.float32)


def _lexeme(word: str) -> str:
    """A word as a tsquery has it."""
    return "'" + _QUOTED.sub(r"\\\g<0>", word) + "'"
