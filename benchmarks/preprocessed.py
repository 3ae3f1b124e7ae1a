"""The authors' preprocessed arrays as their release lays them out, and a torch data set over them.

Every mention has its text at 128 tokens, its picture as 49 regions and 3 objects of its own. In
WikiDiverse's layout it also has copies of its 11 candidates' features (the eleventh is the gold's);
in WikiMEL's all entities stand in one table, with 64 tokens each, and a mention names 101 of them.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

TOKENS, ENTITY_TOKENS, REGIONS, OBJECTS = 128, 64, 49, 3
Array = tuple[tuple[int, ...], str]


def layout(shape: str, mentions: int, entities: int, r: int, t: int, v: int) -> dict[str, Array]:
    """Name -> (shape, dtype) of the arrays of one split with so many mentions."""
    arrays: dict[str, Array] = {
        "mention-text-feature": ((mentions, TOKENS, t), "float32"),
        "mention-text-mask": ((mentions, TOKENS), "float32"),
        "start-pos": ((mentions,), "int64"),
        "end-pos": ((mentions,), "int64"),
        "mention-image-feature": ((mentions, REGIONS, v), "float32"),
        "mention-object-feature": ((mentions, OBJECTS, 1, v), "float32"),
        "mention-object-score": ((mentions, OBJECTS), "float32"),
        "answer": ((mentions,), "int64"),
        "similarity-miet": ((mentions, r + 1), "float32"),
        "similarity-eimt": ((mentions, r + 1), "float32"),
    }
    own = (mentions * (r + 1),) if shape == "wikidiverse" else (entities,)
    arrays |= {
        "entity-attr-feature": ((*own, t), "float32"),
        "entity-image-feature": ((*own, 1, v), "float32"),
        "entity-object-feature": ((*own, 1, 1, v), "float32"),
        "entity-object-score": ((*own, 1), "float32"),
    }
    if shape == "wikimel":
        arrays["entity-attr-feature"] = ((entities, ENTITY_TOKENS, t), "float32")
        arrays["entity-attr-mask"] = ((entities, ENTITY_TOKENS), "float32")
        arrays["candidates"] = ((mentions, r + 1), "int64")  # there as names: a string each
    return arrays


def size(arrays: dict[str, Array]) -> int:
    """Bytes of a layout."""
    return sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in arrays.values())


def write(folder: Path, arrays: dict[str, Array], entities: int, r: int) -> None:
    """Files of random numbers, each a repeated block of them."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for name, (shape, dtype) in arrays.items():
        file = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, shape)
        limit = {"answer": r, "candidates": entities, "start-pos": 8}.get(name, 1)
        for first in range(0, len(file), 64):
            rows = file[first : first + 64]
            if name.endswith("mask"):
                rows[:] = 1
            elif name == "end-pos":
                rows[:] = 10
            elif dtype == "int64":
                rows[:] = rng.integers(0, limit, rows.shape)
            else:
                rows[:] = rng.standard_normal(rows.shape, dtype=np.float32)
        file.flush()


class Mentions(Dataset):
    """A mention an item: everything the layout has of it and of its candidates but the gold slot,
    read from memory-mapped files."""

    def __init__(self, folder: Path, r: int):
        self._arrays = {
            path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))
        }
        self._r = r

    def __len__(self) -> int:
        return len(self._arrays["answer"])

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        own: slice | np.ndarray = slice(i * (self._r + 1), (i + 1) * (self._r + 1) - 1)
        if "candidates" in self._arrays:
            own = self._arrays["candidates"][i, : self._r]
        return {
            name: torch.from_numpy(np.array(array[own if name.startswith("entity") else i]))
            for name, array in self._arrays.items()
        }


def graph(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The arrays that `torch_drin` reads, reduced from a batch of items: the mean of the mention's
    tokens, of an entity's, of a picture's regions; the edges, of which two have to be made."""
    tokens = torch.arange(TOKENS)
    inside = (tokens > batch["start-pos"][:, None]) & (tokens <= batch["end-pos"][:, None])
    weights = inside / inside.sum(1, keepdim=True)
    text = torch.bmm(weights[:, None], batch["mention-text-feature"])[:, 0]
    entity_text = batch["entity-attr-feature"]
    if entity_text.ndim == 4:
        mask = batch["entity-attr-mask"]
        summed = torch.einsum("brsd,brs->brd", entity_text, mask)
        entity_text = summed / mask.sum(2, keepdim=True)
    objects = (
        batch["mention-object-feature"][:, :, 0] * batch["mention-object-score"][..., None]
    ).sum(1)
    theirs = batch["entity-object-feature"][:, :, 0, 0]
    edges = [
        torch.cosine_similarity(text[:, None], entity_text, dim=-1),
        batch["similarity-eimt"][:, :-1],
        batch["similarity-miet"][:, :-1],
        torch.cosine_similarity(objects[:, None], theirs, dim=-1),
    ]
    return {
        "mention_text": text,
        "mention_image": batch["mention-image-feature"].mean(1),
        "entity_text": entity_text,
        "entity_image": batch["entity-image-feature"][:, :, 0],
        "edges": torch.stack(edges, 1),
        "gold": batch["answer"],
    }
