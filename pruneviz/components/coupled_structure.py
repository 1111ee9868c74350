"""The coupled structure of one unit as a drawing, as in LLM-Pruner's Figure 2.

Slices are boxes, data flow is links; what goes is red and dashed.
"""

from __future__ import annotations

from collections.abc import Collection
from html import escape
from itertools import pairwise

from core.plan.records import KV_BITS
from core.results import words
from pruneviz.figures.coupling import spreading
from pruneviz.figures.structure import Link, Slice, StructureInfo

WIDTH, BOX, HEIGHT, GAP, TOP = 800, 240, 74, 14, 30
#: More links than this are drawn as one line that all boxes of a column hang on.
CROWDED = 9
#: Characters of a name that fit into a box.
LONGEST = 24


def structure_svg(info: StructureInfo, pair: Collection[str] = ()) -> str:
    """The drawing as SVG; colours come from the style sheet, so it follows light and dark.

    Args:
        pair: parameters whose boxes are marked.
    """
    columns = _columns(info.slices)
    places = _places(columns)
    height = TOP + max(len(column) for column in columns) * (HEIGHT + GAP) + 4
    if len(info.links) > CROWDED:
        links, labels = [_bus(a, b, places) for a, b in pairwise(columns)], []
    else:
        links = [_link(info, link, places) for link in info.links]
        labels = [_label(info, link, places) for link in info.links]
    heads = [_head(column, i, len(columns)) for i, column in enumerate(columns) if column]
    order = spreading(info.slices, info.links)
    boxes = [_box(part, order[i], part.parameter in pair, *places[i]) for i, part in enumerate(info.slices)]
    title = f"Coupled structure of unit {info.unit} of {info.group}: " + "; ".join(
        f"{part.title} {part.where}" for part in info.slices
    )
    body = "".join([*heads, *links, *boxes, *labels])
    return (
        f'<div class="pv-drawing"><svg viewBox="0 0 {WIDTH} {height}" role="group" '
        f'aria-label="{escape(title, quote=True)}">'
        f'{body}</svg><p class="pv-quiet">{_legend(info)}</p></div>'
    )


def _legend(info: StructureInfo) -> str:
    shared = any(part.stays for part in info.slices)
    rest = " Grey stays, because other units share it." if shared else ""
    return (
        "Red marks what goes, numbered in the order in which pruning spreads; dashed links are cut with it."
        f"{rest} Choose two boxes to see what couples them."
    )


def _columns(slices: tuple[Slice, ...]) -> list[list[int]]:
    """Producers left, norms and the like between, consumers right; a bias stands below its matrix."""
    makers = [i for i, part in enumerate(slices) if part.role in ("layer1", "embedding", "router")]
    takers = [i for i, part in enumerate(slices) if part.role == "layer2"]
    rest = [i for i in range(len(slices)) if i not in makers and i not in takers]
    modules = {slices[i].title for i in makers}
    biases = [i for i in rest if slices[i].title.removesuffix(".bias") in modules]
    makers = sorted(makers + biases, key=lambda i: (slices[i].stays, _after(slices, makers, i), i))
    between = [i for i in rest if i not in biases]
    return [makers, between, takers] if between else [makers, takers]


def _after(slices: tuple[Slice, ...], makers: list[int], i: int) -> int:
    """The place of the matrix a bias belongs to; a matrix stands at its own."""
    name = slices[i].title.removesuffix(".bias")
    return next((m for m in makers if slices[m].title == name), i)


def _places(columns: list[list[int]]) -> dict[int, tuple[float, float]]:
    """Slice -> left upper corner; shorter columns are centred."""
    tallest = max(len(column) for column in columns)
    step = (WIDTH - BOX - 8) / (len(columns) - 1)
    places: dict[int, tuple[float, float]] = {}
    for c, column in enumerate(columns):
        start = TOP + (tallest - len(column)) * (HEIGHT + GAP) / 2
        for r, i in enumerate(column):
            places[i] = (4 + c * step, start + r * (HEIGHT + GAP))
    return places


def _head(column: list[int], at: int, columns: int) -> str:
    names = ("Produces the unit", "Norms and vectors", "Consumes the unit")
    text = names[at] if columns == 3 else (names[0], names[2])[at]
    x = 4 + at * (WIDTH - BOX - 8) / (columns - 1)
    return f'<text class="small" x="{x:.0f}" y="16">{text}</text>'


def _box(part: Slice, order: int | None, marked: bool, x: float, y: float) -> str:
    state = "trigger" if part.trigger else "stays" if part.stays else "goes"
    tag = {"trigger": "trigger", "stays": "stays", "goes": ""}[state]
    name = part.title if len(part.title) <= LONGEST else "…" + part.title[1 - LONGEST :]
    many = f" × {part.times} layers" if part.times > 1 else ""
    amount = "1 parameter" if part.params == 1 else f"{words.count(part.params)} parameters"
    note = f'<text class="tag {tag}" x="{BOX - 10}" y="{HEIGHT - 10}" text-anchor="end">{tag}</text>'
    spoken = f"{order or tag}: {part.parameter}{many}, {part.where}, {amount}" + f", {tag}" * bool(
        order and tag
    )
    badge = (
        ""
        if order is None
        else (
            f'<circle class="order" cx="{BOX - 8}" cy="1" r="10"/>'
            f'<text class="order" x="{BOX - 8}" y="5" text-anchor="middle">{order}</text>'
        )
    )
    return (
        f'<g class="{state}" transform="translate({x:.0f} {y:.0f})" role="button" '
        f'aria-pressed="{str(marked).lower()}" '
        f'tabindex="{0 if part.trigger else -1}" data-parameter="{escape(part.parameter, quote=True)}" '
        f'aria-label="{escape(spoken, quote=True)}"><title>{escape(part.parameter)}{many}, '
        f"{'×'.join(map(str, part.shape))}, {escape(part.where)}</title>"
        f'<rect class="box" width="{BOX}" height="{HEIGHT}" rx="7"/>{_glyph(part)}'
        f'<text class="name" x="62" y="23">{escape(name)}</text>'
        f'<text x="62" y="42">{escape(part.where)}</text>'
        f'<text class="small" x="62" y="60">{amount}{many}</text>{note}{badge}</g>'
    )


def _glyph(part: Slice) -> str:
    """A small picture of the parameter with the slice marked where it lies."""
    flat = len(part.shape) == 1
    wide, high = (10, 46) if flat else (42, 42)
    x, y = 12 + (42 - wide) / 2, (HEIGHT - high) / 2
    across = not flat and part.dim == len(part.shape) - 1
    length = wide if across else high
    marks = []
    for first, last in part.spans[:12]:
        thick = max(2.5, (last - first + 1) / part.size * length)
        start = min(first / part.size * length, length - thick)
        left, top, w, h = (x + start, y, thick, high) if across else (x, y + start, wide, thick)
        marks.append(f'<rect class="slice" x="{left:.1f}" y="{top:.1f}" width="{w:.1f}" height="{h:.1f}"/>')
    return f'<rect class="matrix" x="{x:.1f}" y="{y:.1f}" width="{wide}" height="{high}"/>{"".join(marks)}'


def _ends(link: Link, places: dict[int, tuple[float, float]]) -> tuple[float, float, float, float, float]:
    """Start, end and how far the curve swings out."""
    (ax, ay), (bx, by) = places[link.source], places[link.target]
    start = (ax + BOX, ay + HEIGHT / 2)
    if bx > ax:
        return (*start, bx, by + HEIGHT / 2, (bx - ax - BOX) / 2)
    if bx < ax:  # data that goes on to the next layer comes back to the left
        return (ax, ay + HEIGHT / 2, bx + BOX, by + HEIGHT / 2, -(ax - bx - BOX) / 2)
    return (*start, bx + BOX, by + HEIGHT / 2, 46)


def _link(info: StructureInfo, link: Link, places: dict[int, tuple[float, float]]) -> str:
    x1, y1, x2, y2, swing = _ends(link, places)
    kept = info.slices[link.source].stays or info.slices[link.target].stays
    same = places[link.source][0] == places[link.target][0]
    back = x2 + swing if same else x2 - swing
    ops = " → ".join(link.ops) or "coupled through the same units"
    return (
        f'<path class="edge{" kept" if kept else ""}" '
        f'd="M{x1:.0f} {y1:.0f}C{x1 + swing:.0f} {y1:.0f} {back:.0f} '
        f'{y2:.0f} {x2:.0f} {y2:.0f}"><title>{escape(ops)}</title></path>'
    )


def _bus(left: list[int], right: list[int], places: dict[int, tuple[float, float]]) -> str:
    """One upright line between two columns, with a short one to every box."""
    x = (places[left[0]][0] + BOX + places[right[0]][0]) / 2
    ends = [(places[i][0] + BOX, places[i][1] + HEIGHT / 2) for i in left]
    ends += [(places[i][0], places[i][1] + HEIGHT / 2) for i in right]
    heights = [y for _, y in ends]
    stubs = "".join(f"M{end:.0f} {y:.0f}H{x:.0f}" for end, y in ends)
    return f'<path class="edge" d="M{x:.0f} {min(heights):.0f}V{max(heights):.0f}{stubs}"/>'


def _label(info: StructureInfo, link: Link, places: dict[int, tuple[float, float]]) -> str:
    """The operations, a third of the way along, where links to one target still lie apart."""
    if not link.label:
        return ""
    x1, y1, x2, y2, swing = _ends(link, places)
    if places[link.source][0] == places[link.target][0]:
        x, y = x1 + swing * 0.85, (y1 + y2) / 2 + 4
        return f'<text class="op" x="{x:.0f}" y="{y:.0f}">{escape(link.label)}</text>'
    t, s = 0.36, 0.64
    x = s**3 * x1 + 3 * s * s * t * (x1 + swing) + 3 * s * t * t * (x2 - swing) + t**3 * x2
    y = (s**3 + 3 * s * s * t) * y1 + (3 * s * t * t + t**3) * y2
    return f'<text class="op" x="{x:.0f}" y="{y + 4:.0f}" text-anchor="middle">{escape(link.label)}</text>'


def cost_html(info: StructureInfo, alone: bool = True) -> str:
    """What removing this unit alone saves, exactly; not `alone`: what one unit of its group saves."""
    params, macs = info.cost.params, info.cost.macs_per_token
    facts = [
        ("Parameters", f"{params:,}", _share(params, info.dense.params)),
        ("Multiply-adds per token", f"{macs:,}", _share(macs, info.dense.macs_per_token)),
        ("KV cache per token", f"{info.cost.kv_bytes_per_token:,} B", f"at {KV_BITS} bits"),
    ]
    cells = "".join(
        f"<div><dt>{name}</dt><dd>{value}<small>{rest}</small></dd></div>" for name, value, rest in facts
    )
    note = f'<p class="pv-note">{escape(info.note)}</p>' if info.note and alone else ""
    lead = "" if alone else '<p class="pv-quiet">One unit saves</p>'
    refusal = "" if info.prunable else f'<p class="pv-note">Not prunable: {escape(info.reason or "")}.</p>'
    return f'{lead}<dl class="pv-cost">{cells}</dl>{note}{refusal}'


def members_html(info: StructureInfo) -> str:
    """Every slice in a table, in the order in which pruning spreads: parameter, what is cut, role, size."""
    order = spreading(info.slices, info.links)
    by_order = sorted(zip(order, info.slices, strict=True), key=lambda pair: pair[0] or len(order) + 1)
    rows = [_row(number, part) for number, part in by_order]
    head = (
        '<th class="num">Order</th><th>Parameter</th><th>Shape</th><th class="num">Dimension</th>'
        '<th>Where</th><th>Role</th><th class="num">Parameters</th>'
    )
    return (
        f'<div class="pv-scroll"><table class="pv-table"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(order: int | None, part: Slice) -> str:
    more = f" and {part.times - 1} more" if part.times > 1 else ""
    return (
        f'<tr><td class="num">{order or words.DASH}</td>'
        f'<td class="pv-mono">{escape(part.parameter)}{more}</td>'
        f"<td>{'×'.join(map(str, part.shape))}</td>"
        f'<td class="num">{part.dim}</td><td>{escape(part.where)}</td><td>{_role(part)}</td>'
        f'<td class="num">{part.params:,}</td></tr>'
    )


def _role(part: Slice) -> str:
    if part.stays:
        return "shared, stays"
    name = {"layer1": "layer 1, produces", "layer2": "layer 2, consumes", "vector": "goes along"}
    return name.get(part.role, part.role) + (", trigger" if part.trigger else "")


def _share(part: int, whole: int) -> str:
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 0.0005:
        return "less than 0.001 % of all"
    return f"{share:.3f} % of all" if whole else words.DASH
