"""Stacks as a flame graph: an SVG in which the width of a function is its part of the samples."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape

Stack = tuple[str, ...]

WIDTH = 1200
ROW = 17
_NARROWEST = 1.0
"""Pixels; what is narrower is left out."""
_PIXELS_OF_A_LETTER = 6.4
_COLOURS = {"hopline": "#f4a259", "uvicorn": "#8cb369", "starlette": "#8cb369", "fastapi": "#8cb369"}
_OTHER = "#c9d6df"


@dataclass(slots=True)
class _Function:
    """A function as it was called from one place, and what it called."""

    name: str
    count: int = 0
    callees: dict[str, "_Function"] = field(default_factory=dict)


def draw(stacks: Mapping[Stack, int], title: str) -> str:
    """Return the SVG; the name, the samples and the part of a function are shown when the pointer is over it."""
    root = _tree(stacks)
    boxes: list[str] = []
    depth = _boxes(root, 0.0, 0, root.count, boxes)
    height = (depth + 3) * ROW
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="monospace" font-size="11"><style>rect{stroke:#fff;stroke-width:.5}</style>'
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/><text x="4" y="13">{escape(title)}</text>'
    )
    return "\n".join([head, *boxes, "</svg>", ""])


def _tree(stacks: Mapping[Stack, int]) -> _Function:
    root = _Function("all")
    for stack, count in stacks.items():
        root.count += count
        at = root
        for name in stack:
            at = at.callees.setdefault(name, _Function(name))
            at.count += count
    return root


def _boxes(function: _Function, left: float, depth: int, total: int, boxes: list[str]) -> int:
    """Add the boxes of a function and of all that it called; return the depth of the deepest."""
    width = function.count / max(1, total) * WIDTH
    if width < _NARROWEST:
        return depth
    y = (depth + 1) * ROW
    label = escape(f"{function.name}: {function.count / max(1, total):.1%}")
    boxes.append(
        f'<g><title>{label}</title><rect x="{left:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 1}" '
        f'fill="{_colour(function.name)}"/>{_text(function.name, left, y, width)}</g>'
    )
    deepest = depth
    for callee in sorted(function.callees.values(), key=lambda callee: callee.name):
        deepest = max(deepest, _boxes(callee, left, depth + 1, total, boxes))
        left += callee.count / max(1, total) * WIDTH
    return deepest


def _text(name: str, left: float, y: int, width: float) -> str:
    letters = int((width - 4) / _PIXELS_OF_A_LETTER)
    shown = name if len(name) <= letters else name[: letters - 1] + "…"
    return f'<text x="{left + 2:.1f}" y="{y + 12}">{escape(shown)}</text>' if letters >= 3 else ""


def _colour(name: str) -> str:
    return next((colour for package, colour in _COLOURS.items() if f"({package}" in name), _OTHER)
