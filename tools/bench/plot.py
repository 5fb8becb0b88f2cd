"""The samples as an SVG: one strip a side, each run a dot on a logarithmic axis, the median a bar, failures at the right."""
import html
import math
import statistics

WIDTH, LEFT, RIGHT, STRIP, TITLE = 900, 150, 60, 26, 50
COLOURS = ("#1b6ca8", "#b5541c", "#3d8b40", "#8a4f9e", "#777777")


def _decades(times: list[float]) -> tuple[float, float]:
    """The axis: whole powers of ten, or halves between them, around all that was measured."""
    low, high = math.log10(min(times)), math.log10(max(times))
    return math.floor(low * 2) / 2, max(math.ceil(high * 2) / 2, math.floor(low * 2) / 2 + 0.5)


def _axis(low: float, high: float, x, top: int, bottom: int) -> list[str]:
    out = []
    for power in range(math.floor(low), math.ceil(high) + 1):
        for digit in (1, 2, 5):
            value = digit * 10.0 ** power
            if not low <= math.log10(value) <= high:
                continue
            out.append(f'<line x1="{x(value):.1f}" y1="{top}" x2="{x(value):.1f}" y2="{bottom}" stroke="#ddd"/>')
            out.append(f'<text x="{x(value):.1f}" y="{bottom + 14}" text-anchor="middle" fill="#555">{value:g} ms</text>')
    return out


def _strip(side: dict, colour: str, y: int, x) -> list[str]:
    out = [f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{html.escape(side["name"])}</text>']
    for number, ms in enumerate(side["ms"]):
        shift = y + (number % 5 - 2) * 3  # so that dots of one place can be told apart
        if math.isinf(ms):
            out.append(f'<text x="{WIDTH - RIGHT + 22}" y="{shift + 4}" fill="{colour}">×</text>')
        else:
            out.append(f'<circle cx="{x(ms):.1f}" cy="{shift}" r="2.5" fill="{colour}" fill-opacity="0.6"/>')
    median = statistics.median(side["ms"])
    if not math.isinf(median):
        out.append(f'<line x1="{x(median):.1f}" y1="{y - 11}" x2="{x(median):.1f}" y2="{y + 11}" stroke="{colour}" stroke-width="2"/>')
    return out


def _panel(row: dict, top: int) -> tuple[list[str], int]:
    bottom = top + TITLE + STRIP * len(row["sides"])
    out = [f'<text x="10" y="{top + 22}" font-size="15" font-weight="bold">{row["id"]} {html.escape(row["name"])}</text>']
    finite = [ms for side in row["sides"] for ms in side["ms"] if not math.isinf(ms)]
    if not finite:
        return [*out, f'<text x="{LEFT}" y="{top + 44}">every run failed</text>'], bottom + 30
    low, high = _decades(finite)

    def x(ms: float) -> float:
        return LEFT + (math.log10(ms) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    out += _axis(low, high, x, top + 34, bottom)
    for number, side in enumerate(row["sides"]):
        out += _strip(side, COLOURS[number % len(COLOURS)], top + TITLE + STRIP * number, x)
    return out, bottom + 30


def svg(results: dict) -> str:
    body, top = [], 0
    for row in results["rows"]:
        if "sides" in row:
            panel, top = _panel(row, top)
            body += panel
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top + 10}" font-family="sans-serif" font-size="12">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{top + 10}" fill="white"/>', *body, "</svg>"]) + "\n"
