"""Names and words of a knowledge base, searched by tantivy: memory-mapped, for any size.

A name is folded (`fold`), padded with a space on both sides and cut into trigrams; a name or an
alias is a document of its own, and one with a parenthesis behind it is also found without it. Whole
words count beside the trigrams, and the initials that a name of several words goes by ("JFK",
"J Kennedy"). Descriptions are found by their words. Scores are BM25's, over documents of every
segment, so that a row that was taken out still counts in how rare a word is, and is never found.

    KB/index/text/       tantivy's files
    KB/index/text.json   segments that are in it, and what every file is

The index is a cache. What is not there is added, what is not whole or of other segments is made
anew; where the folder cannot be written, in memory.
"""

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from typing import Any

import numpy as np
import tantivy

from data_pipeline.arrays.array_file import crc32
from data_pipeline.files import load_json, write_json
from data_pipeline.kb import caches
from data_pipeline.kb.folded_names import LONGEST, fold, forms, initials, shortened
from data_pipeline.kb.knowledge_base import Finder, Found, KnowledgeBase
from data_pipeline.output import Progress, say
from data_pipeline.schema import UserError

FORM = f"4 {metadata.version('tantivy')}"
COMMON = 0.05  # words of more than this share of the documents find nobody, but together with
RAREST = 24  # so many words at most are asked for, the rarest
BOOST = {"initials": 2.0}  # what a field counts beside the others
DEEPEST = 4  # times as many as are asked for are looked at where scores tie
QUIET_ROWS = 100_000  # fewer are indexed in about a second
HEAP = 300_000_000  # bytes of documents that tantivy gathers before it writes them
_FIELDS = {"exact": "raw", "gram": "trigrams", "token": "words", "initials": "lines"}


def _trigrams(form: str) -> list[str]:
    padded = f" {form} "
    return list(dict.fromkeys(padded[i : i + 3] for i in range(len(padded) - 2)))


def _analyzers() -> dict[str, Any]:
    build, cut, change = tantivy.TextAnalyzerBuilder, tantivy.Tokenizer, tantivy.Filter
    described = build(cut.simple()).filter(change.remove_long(40)).filter(change.lowercase())
    return {
        "trigrams": build(cut.ngram(3, 3)).build(),
        "words": build(cut.whitespace()).build(),
        "lines": build(cut.regex(r"[^\n]+")).build(),
        "described": described.filter(change.ascii_fold()).build(),
    }


def _schema() -> Any:
    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field("row", fast=True)
    for name, tokenizer in (*_FIELDS.items(), ("word", "described")):
        builder.add_text_field(name, tokenizer_name=tokenizer, index_option="basic")
    return builder.build()


class TextIndex:
    """The index of an open knowledge base, whole from here on. Threads may share it.

    Raises:
        UserError: a segment is damaged.
    """

    def __init__(self, kb: KnowledgeBase):
        self._kb = kb
        self._described = _analyzers()["described"]
        self._schema = _schema()
        self._folder = caches.folder(kb.path) / "text"
        self._state = self._folder.with_suffix(".json")
        keys = [f"{segment.number}-{segment.digest}" for segment in kb.segments]
        index = self._opened(keys) or self._brought_up(keys)
        self._searcher = index.searcher()
        self._rare = COMMON * max(self._searcher.num_docs, 20)

    def _opened(self, keys: Sequence[str], behind: bool = False) -> Any:
        """The index of the folder where it holds these segments; with `behind`, the number of them
        that it lacks is left to be added."""
        with contextlib.suppress(Exception):  # whatever a damaged file leads to, it is made anew
            state = load_json(self._state)
            held = state["segments"]
            same = min(len(held), len(keys))
            if state["form"] != FORM or held[:same] != keys[:same]:
                return None
            if not behind and len(held) < len(keys):
                return None
            for name, (size, crc) in state["files"].items():
                path = self._folder / name
                if path.stat().st_size != size or crc32(path, lambda n: None) != crc:
                    return None
            with self._told():
                return self._tokenized(tantivy.Index.open(str(self._folder)))
        return None

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """What tantivy makes of files that are damaged though their checksums are right: odd
        values, or a panic of Rust's, which is no Exception in Python."""
        try:
            yield
        except BaseException as error:
            odd = (TypeError, ValueError, OverflowError, OSError)
            if not isinstance(error, odd) and type(error).__name__ != "PanicException":
                raise
            raise UserError(
                f"{self._folder}: damaged ({error}); delete it, and the next start makes it anew"
            ) from None

    def _tokenized(self, index: Any) -> Any:
        for name, analyzer in _analyzers().items():
            index.register_tokenizer(name, analyzer)
        index.config_reader("manual")  # no thread that watches the folder
        index.reload()
        return index

    def _brought_up(self, keys: Sequence[str]) -> Any:
        """The index with what it lacks, in its folder; in memory where that cannot be written."""
        try:
            with caches.in_turn(self._kb.path):
                if index := self._opened(keys):
                    return index
                if index := self._opened(keys, behind=True):
                    begin = len(load_json(self._state)["segments"])
                    self._write(index, begin)
                else:
                    if self._folder.exists():
                        say(f"{self._folder}: is not of this knowledge base; made anew")
                        shutil.rmtree(self._folder)
                    self._state.unlink(missing_ok=True)
                    self._folder.mkdir()
                    index = self._tokenized(tantivy.Index(self._schema, path=str(self._folder)))
                    self._write(index, 0)
                files = {
                    path.name: [path.stat().st_size, crc32(path, lambda n: None)]
                    for path in sorted(self._folder.iterdir())
                    if not path.name.endswith(".lock")
                }
                write_json(self._state, {"form": FORM, "segments": list(keys), "files": files})
                return index
        except (OSError, ValueError, UserError) as error:
            say(f"{self._folder}: cannot be written ({error}); the index is made in memory")
            index = self._tokenized(tantivy.Index(self._schema))
            self._write(index, 0)
            return index

    def _write(self, index: Any, begin: int) -> None:
        """Adds the rows of the segments from number `begin` of them on."""
        kb = self._kb
        first = sum(segment.rows for segment in kb.segments[:begin])
        left = len(kb) - first
        writer = index.writer(heap_size=HEAP, num_threads=1)
        with Progress("indexing names", left, unit="rows", loud=left > QUIET_ROWS) as bar:
            columns = [kb.column(name, first) for name in ("name", "aliases", "description")]
            for start in range(0, left, 10_000):
                parts = (column.slice(start, 10_000).to_pylist() for column in columns)
                for i, (name, aliases, text) in enumerate(zip(*parts, strict=True)):
                    for document in _documents(name, aliases, text):
                        document.add_unsigned("row", first + start + i)
                        writer.add_document(document)
                bar.advance(min(10_000, left - start))
            writer.commit()
        writer.wait_merging_threads()
        index.reload()

    def _best(self, terms: Iterable[tuple[str, str]], n: int) -> Found:
        """The n rows that are best by BM25 over these (field, term), ties in their order."""
        should, query = tantivy.Occur.Should, tantivy.Query
        asked = []
        for field, term in terms:
            one = query.term_query(self._schema, field, term, "basic")
            asked.append((should, query.boost_query(one, BOOST.get(field, 1.0))))
        if not asked:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        limit = 2 * n
        while True:
            with self._told():
                hits = self._searcher.search(query.boolean_query(asked), limit, count=False).hits
                places = [place for _, place in hits]
                rows = np.array(self._searcher.fast_field_values("row", places), np.int64)
            scores = np.array([score for score, _ in hits], np.float32)
            last = scores[-1] if len(hits) == limit else -np.inf
            # Rows that came later are not in this generation; of an entity's forms the best counts.
            kept = rows < len(self._kb)
            kept[kept] = self._kb.alive[rows[kept]]
            rows, scores = rows[kept], scores[kept]
            _, first = np.unique(rows, return_index=True)
            order = first[np.lexsort((rows[first], -scores[first]))][:n]
            # What is as good as the last that counts should be seen, as an earlier row goes before;
            # of a first name that thousands share, not all of them.
            seen = len(order) == n and (scores[order[-1]] > last or limit >= DEEPEST * n)
            if len(hits) < limit or seen:
                return rows[order], scores[order]
            limit = DEEPEST * n if limit < DEEPEST * n else 4 * limit

    def names(self, name: str, n: int) -> Found:
        """The n living rows whose names are most like this one, best first: rows [k] int64 and
        BM25 scores [k] float32. k is less than n where fewer share a trigram or a word."""
        form = fold(name[:LONGEST])
        if not form:
            return self._best((), n)
        grams = [("gram", gram) for gram in _trigrams(form)]
        words = [("token", word) for word in dict.fromkeys(form.split())]
        return self._best([*grams, *words, ("initials", shortened(form))], n)

    def words(self, text: str, n: int) -> Found:
        """The n living rows whose descriptions share most with a text, as `names` gives them.
        Words that are common do not count, unless there are no others."""
        text = text.encode(errors="replace").decode()  # a flag may hold half a surrogate pair
        words = dict.fromkeys(self._described.analyze(text))
        with self._told():
            counts = {word: self._searcher.doc_freq("word", word) for word in words}
        there = sorted((count, word) for word, count in counts.items() if count)
        rare = [word for count, word in there if count <= self._rare][:RAREST]
        return self._best([("word", word) for word in rare or [w for _, w in there][:1]], n)

    def knows(self, form: str) -> bool:
        """Whether an entity has this name or alias, given as `fold` makes it."""
        with self._told():
            there = self._searcher.doc_freq("exact", form) > 0  # or was, or came later
        return form != "" and there and len(self._best([("exact", form)], 1)[0]) > 0


def _documents(name: str, aliases: Sequence[str], text: str) -> Iterator[Any]:
    found = forms(name, aliases)
    for number, form in enumerate(found or [""]):
        document = tantivy.Document()
        document.add_text("exact", form)
        document.add_text("gram", f" {form} " if form else "")
        document.add_text("token", form)
        document.add_text("initials", "\n".join(initials(form)))
        if number == 0:
            document.add_text("word", f"{name[:LONGEST]} {text}")
        yield document


def text_index(kb: KnowledgeBase) -> Finder:
    """What finds the names and words of an open knowledge base. UserError: a segment is damaged."""
    return kb.finder() or TextIndex(kb)
