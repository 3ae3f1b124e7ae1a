"""A page measured in inches from the top left: wrapped text, pictures, boxes, over matplotlib."""

import io
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from data_pipeline.files import write_whole

DPI = 160
FONT = "DejaVu Sans"  # comes with matplotlib
PLACEHOLDERS = "Last Resort"  # shows a box for every character there is
INK, GREY = "#1d2329", "#6b7580"
LEADING = 1.35  # line height over font size
POINTS = 72  # of an inch

Piece = tuple[str, dict[str, Any]]  # text and its style: weight, color, background


def fonts_for(text: str) -> tuple[list[str], str]:
    """Families that together show the text, the first one first, and the characters none has."""
    missing = {c for c in text if not c.isspace() and c.isprintable()}
    families: list[str] = []
    entries = font_manager.fontManager.ttflist
    for entry in sorted(entries, key=lambda e: (e.name != FONT, e.weight != 400, e.style)):
        if not missing:
            break
        if entry.name in families or entry.name.startswith(PLACEHOLDERS):
            continue
        try:
            has = font_manager.get_font(entry.fname).get_charmap()
        except (OSError, RuntimeError):  # a font that lies about itself is no font
            continue
        found = {c for c in missing if ord(c) in has}
        if found or not families:
            families.append(entry.name)
            missing -= found
    return families, "".join(sorted(missing))


class Page:
    """A drawing surface of `width` inches; its height is set when it is written.

    Args:
        text: everything that will be drawn, for the choice of fonts.
    """

    def __init__(self, width: float, text: str):
        families, self.unseen = fonts_for(text + "abcdefghijklmnopqrstuvwxyz0123456789")
        self.width = width
        self._items: list[Any] = []
        self._settings: Any = {
            "font.family": families,
            "pdf.fonttype": 42,
            "svg.fonttype": "none",
            "text.parse_math": False,
        }
        with matplotlib.rc_context(self._settings):
            self._figure = Figure(figsize=(width, 1), dpi=DPI)
            self._canvas = FigureCanvasAgg(self._figure)
            self._axes = self._figure.add_axes((0, 0, 1, 1))
        self._axes.set_axis_off()
        self._widths: dict[tuple[str, float, str], float] = {}

    def measure(self, text: str, size: float, weight: str = "normal") -> float:
        """Width of a text in inches."""
        key = text, size, weight
        if key not in self._widths:
            with matplotlib.rc_context(self._settings), _quiet():
                properties = font_manager.FontProperties(size=size, weight=weight)
                renderer = self._canvas.get_renderer()
                width, _, _ = renderer.get_text_width_height_descent(text, properties, False)
            self._widths[key] = width / DPI
        return self._widths[key]

    def text(self, x: float, y: float, text: str, size: float, *, width: float | None = None,
             weight: str = "normal", color: str = INK, align: str = "left") -> None:  # fmt: skip
        """One line with its top at y; cut with an ellipsis where it is wider than `width`."""
        if width is not None and self.measure(text, size, weight) > width:
            while text and self.measure(text + "…", size, weight) > width:
                text = text[:-1]
            text = text.rstrip() + "…"
        baseline = y + size / POINTS
        with matplotlib.rc_context(self._settings):
            self._axes.text(x, baseline, text, fontsize=size, fontweight=weight, color=color,
                            ha=align, va="baseline", zorder=3)  # fmt: skip

    def flow(self, x: float, y: float, width: float, pieces: Sequence[Piece], size: float,
             lines: int) -> float:  # fmt: skip
        """Wrapped text of several styles, at most so many lines; returns the y below it."""
        step = size * LEADING / POINTS
        placed = _wrap(self, pieces, size, width)
        if len(placed) > lines:
            placed = placed[:lines]
            placed[-1] = [
                *placed[-1][:-1],
                (placed[-1][-1][0].rstrip() + " …", *placed[-1][-1][1:]),
            ]
        for i, line in enumerate(placed):
            top = y + i * step
            for text, at, style in line:
                wide = self.measure(text, size, style.get("weight", "normal"))
                if "background" in style:
                    self.box(x + at - 0.02, top - 0.01, wide + 0.04, step - 0.01,
                             color=style["background"])  # fmt: skip
                self.text(x + at, top, text, size, weight=style.get("weight", "normal"),
                          color=style.get("color", INK))  # fmt: skip
        return y + len(placed) * step

    def box(self, x: float, y: float, width: float, height: float, *, color: str,
            order: float = 1) -> None:  # fmt: skip
        """A filled rectangle."""
        self._axes.add_patch(
            Rectangle((x, y), width, height, facecolor=color, edgecolor="none", zorder=order)
        )

    def image(self, picture: Image.Image, x: float, y: float, width: float, height: float,
              *, middle: bool = True) -> float:  # fmt: skip
        """A picture scaled into the rectangle, its shape kept; returns the height it takes."""
        scale = min(width / picture.width, height / picture.height)
        wide, high = picture.width * scale, picture.height * scale
        pixels = (max(int(wide * DPI), 1), max(int(high * DPI), 1))
        if middle:
            x, y = x + (width - wide) / 2, y + (height - high) / 2
        small = picture.resize(pixels, Image.Resampling.LANCZOS)
        self._axes.imshow(small, extent=(x, x + wide, y + high, y), zorder=2, aspect="auto")
        return high

    def write(self, path: Path, height: float) -> None:
        """The page at this height as a whole file, in the format that the name ends in."""
        self._figure.set_size_inches(self.width, height)
        self._axes.set_xlim(0, self.width)
        self._axes.set_ylim(height, 0)
        content = io.BytesIO()
        with matplotlib.rc_context(self._settings), _quiet():
            self._figure.savefig(content, format=path.suffix[1:].lower(), dpi=DPI)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda file: file.write(content.getvalue()))


class _quiet(warnings.catch_warnings):
    """Without matplotlib's line for every character that no font has: `Page.unseen` says it."""

    def __enter__(self) -> Any:
        out = super().__enter__()
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
        return out


def _wrap(page: Page, pieces: Sequence[Piece], size: float, width: float
          ) -> list[list[tuple[str, float, dict[str, Any]]]]:  # fmt: skip
    """Lines of (text, inches from the left, style). Breaks at spaces, and inside of what is wider
    than a line or written without them."""
    lines: list[list[tuple[str, float, dict[str, Any]]]] = [[]]
    at = 0.0
    for text, style in pieces:
        weight = style.get("weight", "normal")
        for word in _words(text):
            wide = page.measure(word.rstrip(), size, weight)
            if at + wide > width and at > 0:
                lines.append([])
                at = 0.0
                word = word.lstrip()
            for part in [word] if wide <= width else list(word):
                wide = page.measure(part.rstrip() or part, size, weight)
                if at + wide > width and at > 0:
                    lines.append([])
                    at = 0.0
                if lines[-1] and lines[-1][-1][2] is style:
                    before, start, _ = lines[-1][-1]
                    lines[-1][-1] = (before + part, start, style)
                    at = start + page.measure(before + part, size, weight)
                else:
                    lines[-1].append((part, at, style))
                    at += page.measure(part, size, weight)
    return [line for line in lines if line] or [[]]


def _words(text: str) -> list[str]:
    """The text cut behind every space and every character of a script without spaces."""
    words, start = [], 0
    for i, c in enumerate(text, 1):
        if c.isspace() or ord(c) >= 0x2E80:
            words.append(text[start:i])
            start = i
    return [*words, text[start:]] if start < len(text) else words
