"""Multiply-adds of the matrix products in a compiled program, read from its text."""

import math
import re

_INSTRUCTION = re.compile(r"%(\S+) = \w+\[([\d,]*)\]")
_PARAMETER = re.compile(r"([\w.\-]+): \w+\[([\d,]*)\]")
_DOT = re.compile(r"= \w+\[([\d,]*)\]\S* dot\([^%]*%([^,)\s]+),.*lhs_contracting_dims=\{([\d,]*)\}")


def count_multiply_adds(hlo: str) -> int:
    """Of every `dot` that is left after XLA's simplifications: output size times contracted size.

    Products that a backend replaced by a library's custom call are not seen: CPU programs only.
    """
    shapes = {name: _sizes(text) for name, text in _PARAMETER.findall(hlo)}
    shapes |= {name: _sizes(text) for name, text in _INSTRUCTION.findall(hlo)}
    total = 0
    for output, left, contracted in _DOT.findall(hlo):
        total += math.prod(_sizes(output)) * math.prod(shapes[left][i] for i in _sizes(contracted))
    return total


def _sizes(text: str) -> list[int]:
    return [int(size) for size in text.split(",") if size]
