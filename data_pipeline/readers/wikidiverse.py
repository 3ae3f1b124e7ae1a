"""WikiDiverse with its ten candidates a mention, as its authors publish it:

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

`read_described` reads lists of mentions with described candidates, `*candidates*.json`, as I2CR
gives WikiDiverse's:

    [{"key", "mention", "sentence", "candidates": [{"name", "description"}, …],
      "gold": name or null, "mention_image": file, …}, …]

A file belongs to the split that its name has a word of (train; valid, dev or val), else to test.
The knowledge base is the union of the candidates and the golds, its ids and names being their
titles in one spelling; of several descriptions an entity has the longest. A null gold is read as
NIL; the files do not tell a mention without an entity from one whose entity is not among the
candidates. Captions of pictures ("image_annotations") are not read. Pictures lie where
WikiDiverse's do.
"""

import dataclasses
import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from data_pipeline.readers import raw_files, raw_rows
from data_pipeline.schema import SPLITS, Corpus, Entity, Mention, UserError

MENTIONS = "{}_w_10cands.json"
BRIEFS = "entity2brief_{}.json"
TEXTS = "wikipedia_entity2desc_filtered.tsv"
PICTURES = "wikipedia_entity2imgs.tsv"
SEPARATOR = "@@@@"
FIELDS = 11
DESCRIBED = {"key", "mention", "sentence", "candidates", "gold", "mention_image"}
# Where WikiDiverse's pictures lie, the mentions' and the entities'; the first folder that is there.
MENTION_PICTURES = ("wikinewsImgs", "wikidiverse_images", "images", "mention_image")
ENTITY_PICTURES = ("entity_images", "wikipediaImgs", "images", *MENTION_PICTURES)

# The extensions that its published recipe for picture names knows; of others the name stays whole.
_EXTENSIONS = (".jpg", ".JPG", ".png", ".PNG", ".svg", ".SVG", ".jpeg", ".JPEG")
_TITLE_ARGUMENT = re.compile(r"[?&]title=([^&#]+)")
_QUERY = re.compile(r"\?\w+=.*$", re.DOTALL)


def read(root: Path, name: str) -> Corpus:
    """The corpus under `root`, with its published splits; mention pictures as named.

    Raises:
        MissingFile: not all three lists, or no texts of entities.
        UserError: a file is not what it should be; names the file and the row.
    """
    sources: dict[str, str] = {}
    counts: Counter[str] = Counter()
    folder = raw_files.folder(root, *MENTION_PICTURES)
    mentions = [m for split in SPLITS for m in _mentions(root, split, folder, sources, counts)]
    texts = _briefs(root, sources)
    known = {*texts, *(one for mention in mentions for one in mention.candidates or ())}
    folded: dict[str, set[str]] = {}
    for one in known:
        folded.setdefault(one.casefold(), set()).add(one)
    for i, mention in enumerate(mentions):
        if mention.gold is not None and mention.gold not in known:
            other_case = folded.get(mention.gold.casefold(), set())
            counts["golds_in_other_case"] += len(other_case) == 1
            if len(other_case) == 1:
                mentions[i] = dataclasses.replace(mention, gold=next(iter(other_case)))
    titles = sorted(known | {mention.gold for mention in mentions if mention.gold is not None})
    counts["golds_that_nothing_else_names"] = len(titles) - len(known)
    lacking = {one for one in titles if not texts.get(one)}  # a brief: the long table may have it
    path = raw_files.find(root, TEXTS)
    for raw, text in raw_files.separated(path, sources, SEPARATOR) if path and lacking else ():
        if (one := title(raw)) in lacking:
            _keep(texts, one, text.strip())
    image = _pictures(root, set(titles), sources)
    entities = [Entity(one, one, texts.get(one, ""), image.get(one)) for one in titles]
    return Corpus(name, entities, mentions, dict(counts), raw_files.placed(root, sources))


def _mentions(
    root: Path, split: str, folder: Path, sources: dict[str, str], counts: Counter[str]
) -> Iterator[Mention]:
    """The rows of a list, golds spelled as they are there."""
    name = MENTIONS.format(split)
    path = raw_files.find(root, name) or root / name
    for number, cells in enumerate(raw_files.load_json(path, sources, "list"), 1):
        where = f"{path}: row {number}"
        if not isinstance(cells, list) or len(cells) != FIELDS:
            got = f"{len(cells)} fields" if isinstance(cells, list) else "no list"
            raise UserError(
                f"{where} must be a list of {FIELDS} fields, got {got}; fetch the data with "
                "10 candidates a mention"
            )
        text = raw_files.text(cells[0], "the sentence", where)
        surface = raw_files.text(cells[2], "the mention", where, empty=False)
        if not isinstance(cells[7], list):
            raise UserError(f"{where}: the candidates must be a list of URLs")
        offered = [title(raw_files.text(one, "each candidate", where)) for one in cells[7]]
        start, end = cells[9:]
        whole = type(start) is int and type(end) is int and 0 <= start < end
        if not whole or text[start:end].casefold() != surface.casefold():
            counts["offsets_not_matching"] += 1
            start, end = raw_rows.locate(text, surface)
        address = raw_files.text(cells[1] or "", "the picture's URL", where).strip()
        yield Mention(
            id=f"{split}-{number}",
            text=text,
            name=surface,
            start=start,
            end=end,
            split=split,
            sample=raw_rows.sample_id(text, address),
            gold=_gold(cells[6], where, counts),
            image=str(folder / picture(address)) if address else None,
            candidates=tuple(filter(None, offered)),
            kind=raw_files.text(cells[3] or "", "the type", where),
        )


def _gold(cell: Any, where: str, counts: Counter[str]) -> str | None:
    address = raw_files.text(cell or "nil", "the gold's URL", where).strip()
    if not address or address.lower() == "nil":
        return None
    gold = title(address)
    counts["golds_without_a_title"] += not gold  # a URL that names no page: NIL as well
    return gold or None


def _briefs(root: Path, sources: dict[str, str]) -> dict[str, str]:
    """Title -> text; of two texts for one title the longer, so that no order of files decides."""
    texts: dict[str, str] = {}
    for split in SPLITS:
        path = raw_files.find(root, BRIEFS.format(split))
        for raw, brief in (raw_files.load_json(path, sources, "object") if path else {}).items():
            text = raw_files.text(brief or "", "the brief", f"{path}: {raw!r}")
            _keep(texts, title(raw_files.text(raw, "the title", f"{path}: {raw!r}")), text)
    if not texts and raw_files.find(root, TEXTS) is None:
        raise raw_files.MissingFile(f"{root} holds neither {BRIEFS.format('train')} nor {TEXTS}")
    texts.pop("", None)
    return texts


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


def read_described(root: Path, name: str) -> Corpus:
    """The corpus under `root`; pictures as named, there or not.

    Raises:
        MissingFile: no such list.
        UserError: a file is not what it should be; names the file and the row.
    """
    sources: dict[str, str] = {}
    texts: dict[str, set[str]] = {}
    folder = raw_files.folder(root, *MENTION_PICTURES)
    mentions: list[tuple[str, Mention]] = []
    paths = sorted(root.glob("*candidates*.json"))
    if not paths:
        raise raw_files.MissingFile(f"{root} holds no *candidates*.json")
    for path in paths:
        words = set(re.split(r"[^a-z]+", path.stem.lower()))
        known = raw_files.SPLIT_NAMES.items()
        split = next((split for split, names in known if words & {*names}), "test")
        for where, _, row in raw_rows.rows(path, sources, list, DESCRIBED):
            key = raw_files.text(row["key"], '"key"', where, empty=False)
            text = raw_files.text(row["sentence"], '"sentence"', where)
            surface = raw_files.text(row["mention"], '"mention"', where, empty=False)
            gold = title(raw_files.text(row["gold"] or "", '"gold"', where)) or None
            picture = raw_files.text(row["mention_image"] or "", '"mention_image"', where)
            mention = raw_rows.located(
                text,
                surface,
                id=f"{split}-{key}",
                split=split,
                sample=raw_rows.sample_id(text, picture),
                gold=gold,
                image=str(folder / picture) if picture else None,
                candidates=_described(row, where, texts),
            )
            mentions.append((where, mention))
            if gold is not None:
                texts.setdefault(gold, set())
    entities = [
        Entity(one, one, max(found, key=lambda text: (len(text), text), default=""))
        for one, found in sorted(texts.items())
    ]
    counts = {"entities_of_several_descriptions": sum(len(t) > 1 for t in texts.values())}
    return Corpus(name, entities, raw_rows.unique(mentions), counts, sources)


def _described(row: dict[str, Any], where: str, texts: dict[str, set[str]]) -> tuple[str, ...]:
    """The titles in their order; their descriptions are added to `texts`."""
    given = row["candidates"]
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise UserError(f'{where}: "candidates" must be a list of objects')
    titles: list[str] = []
    for one in given:
        named = title(raw_files.text(one.get("name"), 'a candidate\'s "name"', where, empty=False))
        text = raw_files.text(one.get("description") or "", 'a candidate\'s "description"', where)
        texts.setdefault(named, set()).add(text)
        titles.append(named)
    return tuple(titles)


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
