"""What upstream makes of the sequences it released: vertices and initial edges, in plain NumPy.

Symbols as in `inventory`; n rows at a time.
"""

import numpy as np

from data_pipeline.store import split_arrays

EDGE_EPS = 1e-9  # added to the denominator of [11]
NORM_EPS = 1e-8  # norms are at least this


def lost_spans(start: np.ndarray, end: np.ndarray, tokens: int) -> np.ndarray:
    """Whether a span (as in `span_means`) has no token inside [1, tokens): [n] bool."""
    return (start < 0) | (start >= np.minimum(end.astype(np.int64), tokens - 1))


def span_means(tokens: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Mean token vector of each mention [2]: [n, t]; CLS where its span is lost.

    Args:
        tokens: [n, L, t], CLS first; may be memory-mapped, only the spans are read.
        start, end: [n] first token and the one behind the last, CLS not counted.
    """
    out = np.empty((len(tokens), tokens.shape[2]), np.float32)
    lost = lost_spans(start, end, tokens.shape[1])
    first = np.where(lost, 0, start.astype(np.int64) + 1)
    last = np.where(lost, 1, end.astype(np.int64) + 1)
    for i, span in enumerate(map(slice, first, last)):
        out[i] = tokens[i, span].astype(np.float32, copy=False).mean(0)
    return out


def inner_means(tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean over tokens 1 .. len-2, CLS and SEP left out: [n, t]; zero where there are none.

    Args:
        tokens: [n, A, t].
        mask: [n, A], len of it not zero.
    """
    positions = np.arange(tokens.shape[1])
    length = (mask != 0).sum(1)[:, None]
    inner = ((positions >= 1) & (positions < length - 1)).astype(np.float32)
    total = (inner[:, None] @ tokens)[:, 0]
    return total / np.maximum(inner.sum(1, keepdims=True), 1)


def object_means(feature: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Σ_a s_a v_a/‖v_a‖ / Σ_a s_a of each picture: [n, o], 0 without objects.

    Args:
        feature: [n, q, 1, o].
        score: [n, q], detector scores.
    """
    feature = feature[:, :, 0]
    norm = np.maximum(np.sqrt(np.einsum("nqo,nqo->nq", feature, feature)), NORM_EPS)
    total = np.einsum("nq,nqo->no", score / norm, feature)
    weight = score.sum(1, keepdims=True)
    return total / np.where(weight > 0, weight, 1)


def edges(
    text: np.ndarray,
    entity_text: np.ndarray,
    similarity: tuple[np.ndarray, np.ndarray],
    objects: np.ndarray,
    entity_objects: np.ndarray,
    weight: np.ndarray,
) -> np.ndarray:
    """Initial edges [n, 4, S] float32 in the order of `schema.RELATIONS`.

    Args:
        text: [n, t] span means.
        entity_text: [n, S, t] the entities' side of R_tt.
        similarity: [n, S] CLIP cosines times 100 of mention text and entity image (R_tv [7]) and of
            mention image and entity text (R_vt [8]).
        objects, entity_objects: `object_means` [n, o] and [n, S, o].
        weight: [n, S] Σ_ab s_a s'_b of each pair of pictures.
    """
    pairs = np.einsum("no,nso->ns", objects, entity_objects)
    relations = [
        split_arrays.cosine(text[:, None], entity_text),
        *(cosine / 100 for cosine in similarity),
        pairs * (weight / (weight + EDGE_EPS)),  # [11] as upstream divides
    ]
    return np.stack(relations, 1).astype(np.float32)
