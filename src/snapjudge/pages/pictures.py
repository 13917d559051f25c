"""Pictures as inline SVG: line plots and histograms that need no script and no font of their own. Knows nothing of proofs."""

from collections.abc import Mapping, Sequence
from html import escape

from markupsafe import Markup

Point = tuple[float, float]
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 320, 272, 46, 40, 38, 12
_COLOURS = ("var(--c0)", "var(--c1)", "var(--c2)")


def plot(
    title: str,
    x_label: str,
    y_label: str,
    lines: Mapping[str, Sequence[Point]],
    *,
    diagonal: bool = False,
    dots: bool = False,
    ranges: Sequence[tuple[float, float, float]] = (),
    note: str = "",
) -> Markup:
    """Lines in the unit square, with axes, grid and a legend where there is more than one line; `ranges` are upright (x, low, high)."""
    body = [_diagonal()] if diagonal else []
    body += [f'<line x1="{_x(x):.1f}" x2="{_x(x):.1f}" y1="{_y(low):.1f}" y2="{_y(high):.1f}" stroke="var(--c2)"/>' for x, low, high in ranges]
    for (name, points), colour in zip(lines.items(), _COLOURS, strict=False):
        if points:
            path = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in points)
            body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"><title>{escape(name)}</title></polyline>')
            if dots:
                body += [f'<circle cx="{_x(x):.1f}" cy="{_y(y):.1f}" r="3.5" fill="{colour}"/>' for x, y in points]
    if len(lines) > 1:
        body.append(_legend(list(lines)))
    return _frame(title, x_label, y_label, [f"{v:g}" for v in (0, 0.25, 0.5, 0.75, 1)], body, note)


def histogram(title: str, x_label: str, counts: Mapping[str, Sequence[int]], *, mark: float | None = None, note: str = "") -> Markup:
    """Counts per bin of [0, 1], one colour a series, side by side; on a square-root scale so that small bins stay visible."""
    top = max([count for series in counts.values() for count in series] + [1])
    body = []
    for place, ((name, series), colour) in enumerate(zip(counts.items(), _COLOURS, strict=False)):
        for index, count in enumerate(series):
            width = 1 / len(series)
            height = (count / top) ** 0.5
            left = _x((index + place / len(counts)) * width)
            box = f'x="{left:.1f}" y="{_y(height):.1f}" width="{(_x(width) - _x(0)) / len(counts) - 0.5:.1f}" height="{_y(0) - _y(height):.1f}"'
            body.append(f'<rect {box} fill="{colour}"><title>{escape(name)}: {count}</title></rect>')
    if mark is not None:
        body.append(f'<line x1="{_x(mark):.1f}" x2="{_x(mark):.1f}" y1="{_y(0)}" y2="{_y(1)}" stroke="var(--bad)" stroke-dasharray="4 3"/>')
        anchor, shift = ("end", -4) if mark > 0.6 else ("start", 4)
        body.append(f'<text x="{_x(mark) + shift:.1f}" y="{_y(1) + 10}" text-anchor="{anchor}" fill="var(--bad)">threshold {mark:.3f}</text>')
    body.append(_legend(list(counts)))
    return _frame(title, x_label, "examples", [f"{round(top * v * v)}" for v in (0, 0.25, 0.5, 0.75, 1)], body, note)


def intervals(title: str, rows: Sequence[tuple[str, float, float, float]], *, span: Point, marks: Sequence[float] = (), note: str = "") -> Markup:
    """One dot with its interval a row, on one axis; `marks` are values to be held against.

    Args:
        rows: (name, value, low, high).
        span: ends of the axis; what lies beyond is drawn at the end.
    """
    left, right, step, top = 190, 640, 20, 34
    height = top + step * len(rows) + 30

    def at(value: float) -> float:
        return left + (min(max(value, span[0]), span[1]) - span[0]) / (span[1] - span[0]) * (right - left)

    body = []
    for tick in (span[0] + (span[1] - span[0]) * part / 5 for part in range(6)):
        body.append(f'<line x1="{at(tick):.1f}" x2="{at(tick):.1f}" y1="{top - 8}" y2="{height - 24}" stroke="var(--line)"/>')
        body.append(f'<text x="{at(tick):.1f}" y="{height - 10}" text-anchor="middle">{tick:g}</text>')
    body += [f'<line x1="{at(mark):.1f}" x2="{at(mark):.1f}" y1="{top - 8}" y2="{height - 24}" stroke="var(--bad)" stroke-dasharray="4 3"/>' for mark in marks]
    for number, (name, value, low, high) in enumerate(rows):
        y = top + step * number + 6
        body.append(f'<text x="{left - 8}" y="{y + 3.5}" text-anchor="end">{escape(name if len(name) <= 34 else name[:33] + "…")}</text>')
        body.append(f'<line x1="{at(low):.1f}" x2="{at(high):.1f}" y1="{y}" y2="{y}" stroke="var(--c0)" stroke-width="2"/>')
        body.append(f'<circle cx="{at(value):.1f}" cy="{y}" r="3.5" fill="var(--c0)"><title>{value:.3f} [{low:.3f}, {high:.3f}]</title></circle>')
    described = f"<desc>{escape(note)}</desc>" if note else ""
    return Markup(  # noqa: S704 - every text in it is escaped
        f'<svg role="img" viewBox="0 0 660 {height}" xmlns="http://www.w3.org/2000/svg" font-size="10" fill="var(--ink)"><title>{escape(title)}</title>'
        f'{described}<text x="14" y="16" font-weight="600" font-size="12">{escape(title)}</text>{"".join(body)}</svg>'
    )


def costs(title: str, lines: Mapping[str, Sequence[Point]], *, mark: float) -> Markup:
    """Lines from the origin's corner with axes of their own size; `mark` is a place on the x axis."""
    far = max([x for points in lines.values() for x, _ in points] + [1e-9])
    top = max([y for points in lines.values() for _, y in points] + [1e-9])
    body = []
    for (name, points), colour in zip(lines.items(), _COLOURS, strict=False):
        path = " ".join(f"{_x(x / far):.1f},{_y(y / top):.1f}" for x, y in points)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"><title>{escape(name)}</title></polyline>')
    body.append(f'<line x1="{_x(mark / far):.1f}" x2="{_x(mark / far):.1f}" y1="{_y(0)}" y2="{_y(1)}" stroke="var(--bad)" stroke-dasharray="4 3"/>')
    body.append(_legend(list(lines)))
    parts = (0, 0.25, 0.5, 0.75, 1)
    return _frame(title, "texts a day", "", [f"{top * v:,.0f}" for v in parts], body, "", [f"{far * v:,.0f}" for v in parts])


def shares(title: str, x_label: str, values: Mapping[str, Sequence[float]], *, marks: Sequence[float] = (), note: str = "") -> Markup:
    """Which share of some values lies below each; dots at the 50th, 95th and 99th percentile, `marks` are places on the x axis.

    The last hundredth of them may lie outside.
    """
    far = 1.15 * max([sorted(some)[int(0.99 * (len(some) - 1))] for some in values.values() if some] + [*marks, 1e-9])
    body = [
        f'<line x1="{_x(mark / far):.1f}" x2="{_x(mark / far):.1f}" y1="{_y(0)}" y2="{_y(1)}" stroke="var(--bad)" stroke-dasharray="4 3"/>' for mark in marks
    ]
    for (name, some), colour in zip(values.items(), _COLOURS, strict=False):
        ordered = sorted(some)
        points = [(value / far, (place + 1) / len(ordered)) for place, value in enumerate(ordered) if value <= far]
        path = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in points)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"><title>{escape(name)}</title></polyline>')
        for share in (0.5, 0.95, 0.99):
            value = ordered[min(len(ordered) - 1, int(share * len(ordered)))]
            told = f"{name}: {100 * share:g} % below {value:.3g}"
            body.append(f'<circle cx="{_x(value / far):.1f}" cy="{_y(share):.1f}" r="3.5" fill="{colour}"><title>{escape(told)}</title></circle>')
    if len(values) > 1:
        body.append(_legend(list(values)))
    parts = (0, 0.25, 0.5, 0.75, 1)
    return _frame(title, x_label, "share below", [f"{v:g}" for v in parts], body, note, [f"{far * v:,.0f}" for v in parts])


def bars(title: str, rows: Sequence[tuple[str, Mapping[str, int]]]) -> Markup:
    """Counts as stacked shares, one bar a row, each part labelled where it is wide enough."""
    left, right, step, top = 120, 640, 26, 44
    names = list(dict.fromkeys(name for _, parts in rows for name in parts))
    many = len(names) > len(_COLOURS)  # then every part carries its name
    body, at = [], float(left)
    for name, colour in zip([] if many else names, _COLOURS, strict=False):
        body.append(f'<rect x="{at:.0f}" y="24" width="9" height="9" fill="{colour}"/><text x="{at + 13:.0f}" y="32">{escape(name)}</text>')
        at += 28 + 5.4 * len(name)
    for number, (row, parts) in enumerate(rows):
        total, x, y = max(1, sum(parts.values())), float(left), top + step * number
        body.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{escape(row)}</text>')
        for place, (name, count) in enumerate(parts.items()):
            width = (right - left) * count / total
            colour = _COLOURS[min(place, len(_COLOURS) - 1)]
            opacity = (1.0, 0.8)[place % 2] if many else 1.0
            body.append(
                f'<rect x="{x:.1f}" y="{y}" width="{max(0.0, width - 1):.1f}" height="18" fill="{colour}" opacity="{opacity:.2f}">'
                f"<title>{escape(name)}: {count}</title></rect>"
            )
            shown = f"{name} {count:,}" if many else f"{count:,}"
            if width > 12 + 5.6 * len(shown):
                body.append(f'<text x="{x + 5:.1f}" y="{y + 13}" fill="var(--page)">{escape(shown)}</text>')
            x += width
    height = top + step * len(rows) + 8
    return Markup(  # noqa: S704 - every text in it is escaped
        f'<svg role="img" viewBox="0 0 660 {height}" xmlns="http://www.w3.org/2000/svg" font-size="10" fill="var(--ink)"><title>{escape(title)}</title>'
        f'<text x="14" y="16" font-weight="600" font-size="12">{escape(title)}</text>{"".join(body)}</svg>'
    )


def _x(value: float) -> float:
    return _LEFT + value * (_WIDTH - _LEFT - _RIGHT)


def _y(value: float) -> float:
    return _HEIGHT - _BOTTOM - value * (_HEIGHT - _BOTTOM - _TOP)


def _diagonal() -> str:
    return f'<line x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}" stroke="var(--c2)" stroke-dasharray="3 3"/>'


def _legend(names: Sequence[str]) -> str:
    """Names with their colours in one row under the title."""
    parts, left = [], float(_LEFT)
    for name, colour in zip(names, _COLOURS, strict=False):
        parts.append(f'<rect x="{left:.0f}" y="23" width="9" height="9" fill="{colour}"/><text x="{left + 13:.0f}" y="31">{escape(name)}</text>')
        left += 28 + 5.4 * len(name)
    return "".join(parts)


def _frame(title: str, x_label: str, y_label: str, ticks: Sequence[str], body: Sequence[str], note: str, places: Sequence[str] = ()) -> Markup:
    grid = []
    for value, tick, place in zip((0, 0.25, 0.5, 0.75, 1), ticks, places or [f"{v:g}" for v in (0, 0.25, 0.5, 0.75, 1)], strict=True):
        grid.append(f'<line x1="{_x(0)}" x2="{_x(1)}" y1="{_y(value):.1f}" y2="{_y(value):.1f}" stroke="var(--line)"/>')
        grid.append(f'<text x="{_LEFT - 5}" y="{_y(value) + 3.5:.1f}" text-anchor="end">{tick}</text>')
        grid.append(f'<text x="{_x(value):.1f}" y="{_HEIGHT - _BOTTOM + 14}" text-anchor="{"end" if places and value == 1 else "middle"}">{place}</text>')
    labels = (
        f'<text x="{_x(0.5):.0f}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>'
        f'<text x="12" y="{_y(0.5):.0f}" text-anchor="middle" transform="rotate(-90 12 {_y(0.5):.0f})">{escape(y_label)}</text>'
        f'<text x="{_LEFT}" y="16" font-weight="600" font-size="12">{escape(title)}</text>'
    )
    described = f"<desc>{escape(note)}</desc>" if note else ""
    return Markup(  # noqa: S704 - every text in it is escaped
        f'<svg role="img" viewBox="0 0 {_WIDTH} {_HEIGHT}" xmlns="http://www.w3.org/2000/svg" font-size="10" fill="var(--ink)">'
        f"<title>{escape(title)}</title>{described}{''.join(grid)}{''.join(body)}{labels}</svg>"
    )
