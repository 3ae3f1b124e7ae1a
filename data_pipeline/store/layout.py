"""What a whole store consists of: its arrays, how their shapes agree, and what they may hold."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from data_pipeline import schema
from data_pipeline.schema import OPTIONAL_ARRAYS, TEMPLATES, UserError

MAX_GROUPS = 32  # bits of the groups array
# Symbol of the schema -> name in `Store.sizes`.
SIZES = {
    **{"E": "entities", "M": "mentions", "r": "r", "t": "text_width"},
    **{"v": "image_width", "o": "object_width", "c": "clip_width"},
}
MAY_BE_EMPTY = ("v", "o", "c")


def check_one(name: str, shape: Sequence[int], dtype: str, where: str) -> None:
    """UserError unless a store may have an array of this name, rank and dtype."""
    if name not in TEMPLATES:
        raise UserError(f"{where}: a store has no array {name!r} (data_pipeline/schema.py)")
    symbols, right = TEMPLATES[name]
    if dtype != right or len(shape) != len(symbols):
        raise UserError(
            f"{where}: {name} is {dtype} {list(shape)}, but must be {right} [{', '.join(symbols)}]"
        )


def resolve(
    arrays: Mapping[str, tuple[Sequence[int], str]], where: str
) -> tuple[dict[str, int], dict[str, int]]:
    """The sizes and splits that the shapes tell.

    Args:
        arrays: name -> (shape, dtype).
        where: names the store in errors.

    Returns:
        sizes by the names in SIZES, and `{split: N}`.

    Raises:
        UserError: an array is missing, unknown, or disagrees with another.
    """
    missing = [name for name in TEMPLATES if name not in arrays and name not in OPTIONAL_ARRAYS]
    if missing:
        raise UserError(f"{where}: lacks the array {missing[0]} ({len(missing)} missing in all)")
    known: dict[str, tuple[int, str]] = {}
    for name, (shape, dtype) in arrays.items():
        check_one(name, shape, dtype, where)
        for symbol, size in zip(TEMPLATES[name][0], shape, strict=True):
            if symbol.isdigit():
                right, source = int(symbol), "the schema"
            else:
                symbol, more = symbol.removesuffix("+1"), symbol.endswith("+1")
                size -= more
                right, source = known.setdefault(symbol, (size, name))
            if size != right:
                raise UserError(
                    f"{where}: {name} {list(shape)} has {symbol} = {size}, but {source} has {right}"
                )
    for symbol, size_name in SIZES.items():
        if known[symbol][0] < 1 and symbol not in MAY_BE_EMPTY:
            raise UserError(f"{where}: {size_name} is 0; there must be at least 1")
    sizes = {size_name: known[symbol][0] for symbol, size_name in SIZES.items()}
    return sizes, {split: known[f"N_{split}"][0] for split in schema.SPLITS}


def check_content(
    array: Callable[[str], np.ndarray], sizes: Mapping[str, int], groups: Sequence[str], where: str
) -> None:
    """UserError where an index points outside its table or two arrays contradict each other.

    Floats are checked elsewhere, with the checksums, so that they are read once.
    """
    if len(set(groups)) < len(groups) or len(groups) > MAX_GROUPS:
        raise UserError(f"{where}: {len(groups)} groups; at most {MAX_GROUPS}, each name once")
    for table in schema.STRING_TABLES:
        _check_offsets(array(f"{table}_offsets"), array(f"{table}_bytes"), f"{where}: {table}")
    entities, r = sizes["entities"], sizes["r"]
    bounds = {
        "mention": (0, sizes["mentions"]),
        "candidates": (schema.PADDING, entities),
        "gold": (schema.NOT_RETRIEVED, r),
        "gold_entity": (schema.OUTSIDE_KB, entities),
        "groups": (0, 1 << len(groups)),
    }
    for split in schema.SPLITS:
        for name, (low, high) in bounds.items():
            _check_range(array(f"{split}_{name}"), low, high, f"{where}: {split}_{name}")
        gold = np.asarray(array(f"{split}_gold"))
        rows = np.flatnonzero(gold >= 0)
        held = array(f"{split}_candidates")[rows, gold[rows]]
        wrong = rows[held != array(f"{split}_gold_entity")[rows]]
        if len(wrong):
            raise UserError(
                f"{where}: {split}_gold row {wrong[0]} names slot {gold[wrong[0]]}, which does not "
                f"hold its {split}_gold_entity"
            )


def check_needed(need: str, array: Callable[[str], np.ndarray], where: str) -> None:
    """The same for the arrays of a need (`schema.NEEDED_ARRAYS`)."""
    if need == "tokens":
        offsets, span = array("mention_token_offsets"), array("mention_span")
        _check_offsets(offsets, array("mention_tokens"), f"{where}: mention_token")
        counts = np.diff(offsets)
        ordered = (span[:, 0] >= 0) & (span[:, 0] < span[:, 1]) & (span[:, 1] <= counts)
        if wrong := np.flatnonzero(~ordered | (counts > schema.MAX_TOKENS)).tolist():
            raise UserError(
                f"{where}: mention_span row {wrong[0]} is {span[wrong[0]].tolist()} in a text of "
                f"{counts[wrong[0]]} tokens"
            )
    if need == "evidence":
        held, known = array("evidence_scale").shape[1], len(schema.EVIDENCE_COLUMNS)
        if held != known:
            raise UserError(
                f"{where}: holds {held} values of each pair's relations, but this program knows "
                f"{known}; delete it to make it anew"
            )
    if need == "regions":
        pictures = len(array("mention_regions"))
        rows = array("mention_region_row")
        _check_range(rows, schema.PADDING, pictures, f"{where}: mention_region_row")


def _check_range(values: np.ndarray, low: int, high: int, what: str) -> None:
    wrong = (values < low) | (values >= high)
    if wrong.any():
        row = int(np.argmax(wrong.reshape(len(values), -1).any(1)))
        raise UserError(
            f"{what} row {row} holds {values[row].tolist()}; allowed are {low} to {high - 1}"
        )


def _check_offsets(offsets: np.ndarray, content: np.ndarray, what: str) -> None:
    if offsets[0] != 0 or offsets[-1] != len(content) or (np.diff(offsets) < 0).any():
        raise UserError(f"{what}_offsets must rise from 0 to {len(content)}, the rows it divides")
