"""A case as a page to print: the mention on the left, its candidates with their edges in rows."""

import re
from pathlib import Path

import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap

from data_pipeline.schema import RELATIONS, Entity, Mention
from drin_jax.explain.cases import Candidate, Case, two_decimals
from drin_jax.explain.sheet import GREY, INK, Page, Piece
from drin_jax.explain.sources import Sources

MARGIN, LEFT, GAP = 0.4, 3.7, 0.45  # inches, as everything here
TOP = 0.95  # below the heading
ROW, THUMB, TEXT = 1.24, 0.98, 2.75
CELL, CELL_HEIGHT, LABEL, STRIP_GAP = 0.42, 0.21, 0.28, 0.3
NAME = 0.3  # height of a name on one line, at most
NUMBERED = 0.3  # narrower cells hold no number
MOST = 2.6  # width of a strip, however many layers
GOLD, MISS, MARK, PALE = "#1f7a4d", "#b3372f", "#ffe08a", "#eef1f4"
WEIGHTS = LinearSegmentedColormap.from_list("weights", ["#b35806", "#fbe3c8", "#f7f8f9",
                                                        "#a9cbe4", "#10519a"])  # fmt: skip


def draw(path: Path, case: Case, sources: Sources, n: int, against: Case | None) -> str:
    """Write the page to `path`; returns the characters that no installed font shows."""
    shown = case.shown(n)
    strips = [c for c in (case, against) if c is not None and c.has_edges]
    width = 2 * MARGIN + LEFT + GAP + 0.4 + THUMB + 0.2 + TEXT + 0.75
    width += sum(STRIP_GAP + LABEL + _strip_width(c) for c in strips)
    mention = sources.mentions.get(case.id)
    page = Page(width, _everything(case, shown, sources, against))
    _heading(page, case, against)
    low = _mention(page, case, mention, sources)
    limit = _largest(case, against, shown)
    below = _candidates(page, case, shown, sources, against, strips, limit)
    below = max(low, below)
    if strips:
        below = _legend(page, below, limit, LEFT + MARGIN + GAP)
    page.write(path, below + MARGIN)
    return page.unseen


def _everything(case: Case, shown: tuple[Candidate, ...], sources: Sources, against: Case | None
                ) -> str:  # fmt: skip
    """All text of the page."""
    mention = sources.mentions.get(case.id)
    texts = [case.surface, case.system, case.gold, case.id, mention.text if mention else ""]
    texts += [f"{c.name}{c.id}{sources.description(c.id)}" for c in shown]
    return "".join(texts) + (against.system if against else "") + "…→–“”·"


def _heading(page: Page, case: Case, against: Case | None) -> None:
    first = case.candidates[0] if case.candidates else None
    right = first is not None and first.gold
    verdict = "right" if right else "wrong"
    inner = page.width - 2 * MARGIN
    title = f"“{case.surface}”"
    page.text(MARGIN, 0.28, title, 15, weight="bold", width=inner * 0.5)
    at = MARGIN + min(page.measure(title, 15, "bold"), inner * 0.5) + 0.18
    page.text(at, 0.325, verdict, 11, weight="bold", color=GOLD if right else MISS)
    at += page.measure(verdict, 11, "bold") + 0.18
    page.text(at, 0.325, f"gold: {case.gold}", 11, width=page.width - MARGIN - at)
    system = f"{case.split} {case.id} · {case.system}" + (
        f" · against {against.system}" if against else ""
    )
    page.text(MARGIN, 0.59, system, 8, color=GREY, width=inner)


def _mention(page: Page, case: Case, mention: Mention | None, sources: Sources) -> float:
    """The left column; returns where it ends."""
    span = {"background": MARK, "weight": "bold"}
    pieces: list[Piece] = [(case.surface, span)]
    if mention is not None and mention.start is not None and mention.end is not None:
        pieces = [
            (_plain(mention.text[: mention.start]), {}),
            (
                _plain(mention.text[mention.start : mention.end]),
                {"background": MARK, "weight": "bold"},
            ),
            (_plain(mention.text[mention.end :]), {}),
        ]
    elif mention is not None:
        pieces = [(_plain(mention.text), {})]
    low = page.flow(MARGIN, TOP, LEFT, pieces, 10, 16)
    if sources.missing:
        return page.flow(MARGIN, low + 0.1, LEFT, [(sources.missing, {"color": GREY})], 8, 6)
    picture, why = sources.picture(mention)
    if picture is None:
        page.box(MARGIN, low + 0.15, LEFT, 0.8, color=PALE)
        page.text(MARGIN + LEFT / 2, low + 0.48, why, 8, color=GREY, align="center")
        return low + 0.95
    return low + 0.15 + page.image(picture, MARGIN, low + 0.15, LEFT, 3.6, middle=False)


def _plain(text: str) -> str:
    """Every run of white space as one space."""
    return re.sub(r"\s+", " ", text)


def _candidates(page: Page, case: Case, shown: tuple[Candidate, ...], sources: Sources,
                against: Case | None, strips: list[Case], limit: float) -> float:  # fmt: skip
    """The rows; returns where they end."""
    left = MARGIN + LEFT + GAP
    text = left + 0.4 + THUMB + 0.2
    score = text + TEXT + 0.7
    starts, at = [], score
    for strip in strips:
        at += STRIP_GAP + LABEL
        starts.append(at)
        at += _strip_width(strip)
        if len(strips) > 1:
            page.text(starts[-1], TOP - 0.16, "this run" if strip is case else "against", 7.5,
                      color=GREY, weight="bold")  # fmt: skip
    for i, c in enumerate(shown):
        top = TOP + i * ROW + (0.18 if strips else 0)
        if i and c.rank > shown[i - 1].rank + 1:
            page.text(left, top - 0.17, "⋯", 9, color=GREY)
        if c.gold:
            page.box(left - 0.12, top, 0.05, THUMB, color=GOLD)
        colour = GOLD if c.gold else MISS if c.rank == 1 and case.gold_id else INK
        page.text(left + 0.3, top, str(c.rank), 13, weight="bold", color=colour, align="right")
        _thumb(page, left + 0.4, top, c, sources)
        bold = {"weight": "bold", "color": GOLD if c.gold else INK}
        low = page.flow(text, top, TEXT, [(c.name, bold)], 10, 2)
        page.text(text, low, c.id + (" · gold" if c.gold else ""), 7.5, color=GREY, width=TEXT)
        lines = 4 if low - top < NAME else 3
        page.flow(text, low + 0.16, TEXT, [(sources.description(c.id), {})], 8, lines)
        page.text(score, top, f"{c.score:.3f}", 10, weight="bold", align="right")
        other = against.find(c.id) if against else None
        if against:
            beside = f"{other.score:.3f}" if other else "–"
            place = f"rank {other.rank}" if other else "not ranked"
            page.text(score, top + 0.24, "against", 7, color=GREY, align="right")
            page.text(score, top + 0.38, beside, 8.5, color=GREY, align="right")
            page.text(score, top + 0.55, place, 7, color=GREY, align="right")
        for strip, x in zip(strips, starts, strict=True):
            own = c if strip is case else other
            if own is not None and own.edges is not None:
                _strip(page, x, top, own.edges, limit, heads=i == 0)
    return TOP + len(shown) * ROW + (0.18 if strips else 0)


def _thumb(page: Page, x: float, y: float, c: Candidate, sources: Sources) -> None:
    entity: Entity | None = sources.entities.get(c.id)
    picture, why = sources.picture(entity)
    if picture is not None:
        page.image(picture, x, y, THUMB, THUMB)
        return
    if entity is None and not c.has_image:
        why = "no picture"
    page.box(x, y, THUMB, THUMB, color=PALE)
    page.flow(x + 0.1, y + 0.35, THUMB - 0.2, [(why, {"color": GREY})], 7, 3)


def _strip(page: Page, x: float, y: float, edges: np.ndarray, limit: float, heads: bool) -> None:
    """Relations as rows, before and after every layer as columns."""
    steps = len(edges)
    wide = min(CELL, MOST / steps)
    for j in range(steps):
        if heads:
            name = "before" if j == 0 else f"{j}"
            if j == 1 and wide >= NUMBERED:
                name = "layer 1"
            page.text(x + (j + 0.5) * wide, y - 0.15, name, 6.5, color=GREY, align="center")
    for i, relation in enumerate(RELATIONS):
        top = y + i * CELL_HEIGHT
        page.text(x - 0.06, top + 0.045, relation, 7.5, color=GREY, align="right")
        for j, weight in enumerate(edges[:, i].tolist()):
            at = x + j * wide
            if np.isnan(weight):
                page.box(at, top, wide - 0.015, CELL_HEIGHT - 0.015, color=PALE)
                if wide >= NUMBERED:
                    page.text(at + wide / 2, top + 0.04, "–", 7, color=GREY, align="center")
                continue
            colour, ink = shade(weight, limit)
            page.box(at, top, wide - 0.015, CELL_HEIGHT - 0.015, color=colour)
            if wide >= NUMBERED:
                page.text(
                    at + wide / 2, top + 0.04, two_decimals(weight), 7, color=ink, align="center"
                )


def shade(weight: float, limit: float, colours: Colormap = WEIGHTS) -> tuple[str, str]:
    """Colours of a weight between -limit and limit, and of a number written on it."""
    r, g, b, _ = colours(0.5 + 0.5 * float(np.clip(weight / limit, -1, 1)))
    dark = 0.3 * r + 0.59 * g + 0.11 * b < 0.55
    return f"#{int(255 * r):02x}{int(255 * g):02x}{int(255 * b):02x}", "#ffffff" if dark else INK


def _legend(page: Page, y: float, limit: float, left: float) -> float:
    steps, wide = 60, 1.6
    page.text(left, y, "edge weight", 7.5, color=GREY)
    x = left + page.measure("edge weight", 7.5) + 0.15
    page.text(x + 0.27, y, f"{-limit:.1f}", 7.5, color=GREY, align="right")
    for i in range(steps):
        colour, _ = shade(limit * (2 * i / (steps - 1) - 1), limit)
        page.box(x + 0.33 + i * wide / steps, y, wide / steps + 0.01, 0.13, color=colour)
    page.text(x + wide + 0.4, y, f"{limit:.1f}", 7.5, color=GREY)
    note = "before: from the frozen features, what static edges keep"
    page.text(x + wide + 0.85, y, note, 7.5, color=GREY, width=page.width - x - wide - 1.2)
    return y + 0.2


def _strip_width(case: Case) -> float:
    return min(CELL * (case.layers + 1), MOST)


def _largest(case: Case, against: Case | None, shown: tuple[Candidate, ...]) -> float:
    """The largest weight shown, at least 1: where the colours end."""
    others = [against.find(c.id) for c in shown] if against else []
    found = [c.edges for c in (*shown, *others) if c is not None and c.edges is not None]
    sizes = [np.nanmax(np.abs(e)) for e in found if not np.isnan(e).all()]
    return float(max([1.0, *sizes]))
