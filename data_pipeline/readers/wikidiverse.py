"""WikiDiverse with its ten candidates a mention, as its authors publish it.

    {train,valid,test}_w_10cands.json   [[sentence, picture's URL, mention, type, left context,
                                          right context, gold's URL or "nil", candidates' URLs,
                                          topic, start, end], …]
    entity2brief_{split}.json           {title: text}; or wikipedia_entity2desc_filtered.tsv, lines
                                        title@@@@text; one of the two must be there
    wikipedia_entity2imgs.tsv           lines title@@@@URL[AND]URL…; optional

in the folder or in folders of it. Mention pictures lie in `wikinewsImgs/` (or wikidiverse_images/,
images/, mention_image/), entity pictures in `entity_images/`, `wikipediaImgs/`, `images/` or with
the mentions'; `picture` says how they are called.

The knowledge base holds each title that has a brief, is a candidate, or is a gold; its entities'
ids and names are their titles in one spelling (`title`). A gold that no candidate and no
brief spells so, but one does in other case, is that one. Golds that nothing else names are counted:
no candidate list can hold them.

Offsets that do not show the mention are replaced by its first occurrence; both are counted. The
mentions' `kind` is their type (Person, Organization, …): the topic tells more of the news than of
what is to be linked. The two contexts are the sentence's words again and are not read.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from data_pipeline.readers import raw_files, raw_rows
from data_pipeline.schema import SPLITS, Corpus, Entity, Mention, UserError

MENTIONS = "{}_w_10cands.json"
BRIEFS = "entity2brief_{}.json"
TEXTS = "wikipedia_entity2desc_filtered.tsv"
PICTURES = "wikipedia_entity2imgs.tsv"
SEPARATOR = "@@@@"
FIELDS = 11
# Where WikiDiverse's pictures lie, the mentions' and the entities'; the first folder that is there.
MENTION_PICTURES = ("wikinewsImgs", "wikidiverse_images", "images", "mention_image")
ENTITY_PICTURES = ("entity_images", "wikipediaImgs", "images", *MENTION_PICTURES)

# The extensions that its published recipe for picture names knows; of others the name stays whole.
_EXTENSIONS = (".jpg", ".JPG", ".png", ".PNG", ".svg", ".SVG", ".jpeg", ".JPEG")
_TITLE_ARGUMENT = re.compile(r"[?&]title=([^&#]+)")
_QUERY = re.compile(r"\?\w+=.*$", re.DOTALL)


class RawRow(NamedTuple):
    """A row of a list, its place in the file, and its candidates' titles."""

    split: str
    number: int
    where: str
    cells: list[Any]
    candidates: tuple[str, ...]


def read(root: Path, name: str) -> Corpus:
    """The corpus under `root`, with its published splits; mention pictures as named.

    Raises:
        MissingFile: not all three lists, or no texts of entities.
        UserError: a file is not what it should be; names the file and the row.
    """
    sources: dict[str, str] = {}
    counts: Counter[str] = Counter()
    rows = [row for split in SPLITS for row in _rows(root, split, sources)]
    texts = _briefs(root, sources)
    known = {*texts, *(one for row in rows for one in row.candidates)}
    folded: dict[str, set[str]] = {}
    for one in known:
        folded.setdefault(one.casefold(), set()).add(one)
    folder = raw_files.folder(root, *MENTION_PICTURES)
    mentions: list[Mention] = []
    for row in rows:
        start, end = _span(row, counts)
        address = raw_files.text(row.cells[1] or "", "the picture's URL", row.where).strip()
        gold = _gold(row, counts)
        if gold is not None and gold not in known:
            other_case = folded.get(gold.casefold(), set())
            counts["golds_in_other_case"] += len(other_case) == 1
            gold = next(iter(other_case)) if len(other_case) == 1 else gold
        mentions.append(
            Mention(
                id=f"{row.split}-{row.number}",
                text=row.cells[0],
                name=row.cells[2],
                start=start,
                end=end,
                split=row.split,
                sample=raw_rows.sample_id(row.cells[0], address),
                gold=gold,
                image=str(folder / picture(address)) if address else None,
                candidates=row.candidates,
                kind=raw_files.text(row.cells[3] or "", "the type", row.where),
            )
        )
    titles = sorted(known | {mention.gold for mention in mentions if mention.gold is not None})
    counts["golds_that_nothing_else_names"] = len(titles) - len(known)
    _more_texts(root, texts, set(titles), sources)
    image = _pictures(root, set(titles), sources)
    entities = [Entity(one, one, texts.get(one, ""), image.get(one)) for one in titles]
    return Corpus(name, entities, mentions, dict(counts), raw_files.placed(root, sources))


def _rows(root: Path, split: str, sources: dict[str, str]) -> list[RawRow]:
    name = MENTIONS.format(split)
    path = raw_files.find(root, name) or root / name
    loaded = raw_files.load_json(path, sources)
    if not isinstance(loaded, list) or not loaded:
        raise UserError(f"{path}: expected a JSON list with at least one row; fetch it again")
    rows: list[RawRow] = []
    for number, cells in enumerate(loaded, 1):
        where = f"{path}: row {number}"
        if not isinstance(cells, list) or len(cells) != FIELDS:
            got = f"{len(cells)} fields" if isinstance(cells, list) else "no list"
            raise UserError(
                f"{where} must be a list of {FIELDS} fields, got {got}; fetch the data with "
                "10 candidates a mention"
            )
        raw_files.text(cells[0], "the sentence", where)
        raw_files.text(cells[2], "the mention", where, empty=False)
        if not isinstance(cells[7], list):
            raise UserError(f"{where}: the candidates must be a list of URLs")
        offered = [title(raw_files.text(one, "each candidate", where)) for one in cells[7]]
        rows.append(RawRow(split, number, where, cells, tuple(filter(None, offered))))
    return rows


def _gold(row: RawRow, counts: Counter[str]) -> str | None:
    address = raw_files.text(row.cells[6] or "nil", "the gold's URL", row.where).strip()
    if not address or address.lower() == "nil":
        return None
    gold = title(address)
    counts["golds_without_a_title"] += not gold  # a URL that names no page: NIL as well
    return gold or None


def _span(row: RawRow, counts: Counter[str]) -> tuple[int | None, int | None]:
    text, surface, start, end = row.cells[0], row.cells[2], row.cells[9], row.cells[10]
    whole = type(start) is int and type(end) is int
    if whole and 0 <= start < end and text[start:end].casefold() == surface.casefold():
        return start, end
    counts["offsets_not_matching"] += 1
    return raw_rows.locate(text, surface)


def _briefs(root: Path, sources: dict[str, str]) -> dict[str, str]:
    """Title -> text; of two texts for one title the longer, so that no order of files decides."""
    texts: dict[str, str] = {}
    for split in SPLITS:
        path = raw_files.find(root, BRIEFS.format(split))
        for raw, brief in raw_files.load_json_object(path, sources).items() if path else ():
            text = raw_files.text(brief or "", "the brief", f"{path}: {raw!r}")
            _keep(texts, title(raw), text)
    if not texts and raw_files.find(root, TEXTS) is None:
        raise raw_files.MissingFile(f"{root} holds neither {BRIEFS.format('train')} nor {TEXTS}")
    texts.pop("", None)
    return texts


def _more_texts(
    root: Path, texts: dict[str, str], titles: set[str], sources: dict[str, str]
) -> None:
    """Adds texts of the long table for those of `titles` that have no brief."""
    lacking = {one for one in titles if not texts.get(one)}
    path = raw_files.find(root, TEXTS)
    if path is None or not lacking:
        return
    for raw, text in raw_files.separated(path, sources, SEPARATOR):
        one = title(raw)
        if one in lacking:
            _keep(texts, one, text.strip())


def _keep(texts: dict[str, str], one: str, text: str) -> None:
    texts[one] = max(texts.get(one, ""), text, key=lambda candidate: (len(candidate), candidate))


def _pictures(root: Path, titles: set[str], sources: dict[str, str]) -> dict[str, str]:
    path = raw_files.find(root, PICTURES)
    if path is None:
        return {}
    folder = raw_files.folder(root, *ENTITY_PICTURES)
    shown: dict[str, list[str]] = {}
    for raw, addresses in raw_files.separated(path, sources, SEPARATOR):
        one = title(raw)
        if one in titles:
            shown.setdefault(one, []).extend(
                str(folder / picture(address))
                for address in addresses.split("[AND]")
                if address.strip()
            )
    return raw_rows.first_there(shown)


def title(address: str) -> str:
    """The title that an address or a title as in a URL names, in one spelling; "" if none.

    Takes what follows "/wiki/" (slashes belong to titles: "AC/DC"), or a "title" argument, or the
    last part; so a prefix that does not belong there ("nhttps://…") does no harm. Drops fragment
    and query, decodes percent signs (twice encoded too), turns underscores to spaces, and writes
    the first letter large, as Wikipedia does.
    """
    address = address.strip()
    argument = _TITLE_ARGUMENT.search(address) if "title=" in address else None
    if argument:
        named = argument[1]
    elif "/wiki/" in address:
        named = address.split("/wiki/", 1)[1].rstrip("/")
    elif "://" in address:
        named = address.rstrip("/").rsplit("/", 1)[-1]
    else:
        named = address
    named = named.split("#", 1)[0]
    named = _QUERY.sub("", named) if "?" in named else named
    for _ in range(3):
        named = unquote(named) if "%" in named else named
    if not named.isascii():
        named = unicodedata.normalize("NFC", named)
    named = named.split("#", 1)[0]
    named = " ".join(named.replace("_", " ").split())
    return named[:1].upper() + named[1:]


def picture(address: str) -> str:
    """The file of a picture's address: MD5 of its last part, and the extension; svg became png.

    As WikiDiverse's page gives it; where the extension is none of its eight (gif), the whole last
    part follows the MD5.
    """
    last = address.strip().split("/")[-1]
    cut = max(last.rfind(extension) for extension in _EXTENSIONS)
    name = hashlib.md5(last.encode(), usedforsecurity=False).hexdigest() + last[max(cut, 0) :]
    return name.replace(".svg", ".png").replace(".SVG", ".png")
