"""Lines over two logarithmic axes, as an SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10

COLOURS = ("#d62728", "#ff7f0e", "#7f7f7f", "#2ca02c", "#1f77b4", "#9467bd", "#8c564b")
WIDTH, HEIGHT, LEFT, TOP, KEY = 760, 400, 60, 40, 180
"""Pixels: the whole, what lies left and above and below of the lines, and the names to their right."""


def plot(title: str, lines: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Each line by its name and its points, which are all above 0."""
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points]
    low, high = floor(log10(min(ys))), ceil(log10(max(ys)))
    right, bottom = WIDTH - KEY, HEIGHT - TOP

    def across(x: float) -> float:
        return LEFT + (right - LEFT) * log10(x / min(xs)) / max(log10(max(xs) / min(xs)), 1e-9)

    def down(y: float) -> float:
        return bottom - (bottom - TOP) * (log10(y) - low) / max(high - low, 1)

    parts = [_text(LEFT, 20, title)]
    for power in range(low, high + 1):
        parts.append(f'<path d="M{LEFT} {down(10**power):.1f}H{right}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 8, down(10**power) + 4, f"{10**power:,g}", "end"))
    parts += [_text(across(x), bottom + 20, f"{x:,g}", "middle") for x in sorted(set(xs))]
    for number, (name, points) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<circle cx="{right + 20}" cy="{TOP + 22 * number + 6}" r="5" fill="{colour}"/>')
        parts.append(_text(right + 32, TOP + 22 * number + 10, name))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="13">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#fff"/>', *parts, "</svg>", ""])


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
