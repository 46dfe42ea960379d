"""Line charts as SVG, for a report in the docs: uses the standard library only, readable in dark mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

Series = Mapping[str, Sequence[tuple[float, float]]]
"""Lines by name: points of (seconds, value)."""

WIDTH, HEIGHT = 720, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 34, 34
COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed")


def draw(path: Path, title: str, unit: str, lines: Series, marks: Mapping[float, str] | None = None) -> None:
    """Write the chart. `marks`: vertical lines with a text, by their second."""
    points = [point for line in lines.values() for point in line]
    last = max((x for x, _ in points), default=1.0) or 1.0
    most = _ceiling(max((y for _, y in points), default=1.0))

    def x_of(seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * seconds / last

    def y_of(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / most

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="sans-serif" font-size="11">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="16" font-size="13" fill="#111827">{escape(title)}</text>',
    ]
    for step in range(5):
        value = most * step / 4
        y = y_of(value)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e5e7eb"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#4b5563">{value:,.4g}</text>')
    for step in range(7):
        seconds = last * step / 6
        parts.append(
            f'<text x="{x_of(seconds):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle" fill="#4b5563">{seconds:.0f} s</text>'
        )
    parts.append(f'<text x="{LEFT}" y="{TOP - 6}" fill="#4b5563">{escape(unit)}</text>')
    for seconds, text in (marks or {}).items():
        x = x_of(seconds)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#9ca3af" stroke-dasharray="4 3"/>'
        )
        parts.append(f'<text x="{x + 4:.1f}" y="{TOP + 10}" fill="#374151">{escape(text)}</text>')
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path_of = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in line)
        parts.append(f'<polyline points="{path_of}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        x = WIDTH - RIGHT - 150 * (len(lines) - number)
        parts.append(f'<rect x="{x}" y="{TOP - 14}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 14}" y="{TOP - 5}" fill="#111827">{escape(name)}</text>')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>\n"]))


def _ceiling(value: float) -> float:
    """The next of 1, 2, 2.5, 4, 5, 8 and 10 times a power of ten."""
    scale = 1.0
    while scale * 10 <= value:
        scale *= 10
    while scale > value and scale > 1e-9:
        scale /= 10
    return next(scale * step for step in (1, 2, 2.5, 4, 5, 8, 10, 20) if scale * step >= value)
