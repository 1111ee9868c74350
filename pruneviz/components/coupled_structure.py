"""The coupled structure of one unit as a drawing, as in LLM-Pruner's Figure 2.

Slices are boxes, data flow is links; what goes is red and dashed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from core.plan.records import KV_BITS
from core.results import words
from pruneviz.figures.render import render
from pruneviz.figures.structure import Link, Slice, StructureInfo, spreading

WIDTH, BOX, HEIGHT, GAP, TOP = 800, 240, 74, 14, 30
#: More links than this are drawn as one line that all boxes of a column hang on.
CROWDED = 9
#: Characters of a name that fit into a box.
LONGEST = 24


@dataclass(frozen=True)
class Box:
    """A slice as drawn, its left upper corner at x, y.

    Attributes:
        order: when pruning reaches it, None if it stays; marked: whether it is one end of the path shown.
    """

    part: Slice
    order: int | None
    marked: bool
    x: float
    y: float

    @property
    def state(self) -> str:
        """`trigger`, `stays` or `goes`."""
        return "trigger" if self.part.trigger else "stays" if self.part.stays else "goes"

    @property
    def tag(self) -> str:
        """What the box says of it."""
        return "" if self.state == "goes" else self.state

    @property
    def name(self) -> str:
        """The end of a long name, where names differ."""
        title = self.part.title
        return title if len(title) <= LONGEST else "…" + title[1 - LONGEST :]

    @property
    def many(self) -> str:
        """In how many layers, where in several."""
        return f" × {self.part.times} layers" if self.part.times > 1 else ""

    @property
    def amount(self) -> str:
        """Its size."""
        return "1 parameter" if self.part.params == 1 else f"{words.count(self.part.params)} parameters"

    @property
    def spoken(self) -> str:
        """All of it for those who listen."""
        what = f"{self.part.parameter}{self.many}, {self.part.where}, {self.amount}"
        return f"{self.order or self.tag}: {what}{f', {self.tag}' if self.order and self.tag else ''}"

    @property
    def glyph(self) -> list[tuple[str, float, float, float, float]]:
        """A small picture of the parameter, the slice marked where it lies: class, x, y, width, height."""
        part, flat = self.part, len(self.part.shape) == 1
        wide, high = (10, 46) if flat else (42, 42)
        x, y = 12 + (42 - wide) / 2, (HEIGHT - high) / 2
        across = not flat and part.dim == len(part.shape) - 1
        length = wide if across else high
        drawn = [("matrix", x, y, float(wide), float(high))]
        for first, last in part.spans[:12]:
            thick = max(2.5, (last - first + 1) / part.size * length)
            start = min(first / part.size * length, length - thick)
            place = (x + start, y, thick, high) if across else (x, y + start, wide, thick)
            drawn.append(("slice", *place))
        return drawn


@dataclass(frozen=True)
class Edge:
    """A line of the drawing as an SVG path, and the operations it stands for."""

    path: str
    kept: bool = False
    title: str = ""


def structure_svg(info: StructureInfo, pair: Collection[str] = ()) -> Markup:
    """The drawing as SVG.

    Args:
        pair: parameters whose boxes are marked.
    """
    columns = _columns(info.slices)
    places = _places(columns)
    order = spreading(info.slices, info.links)
    crowded = len(info.links) > CROWDED
    if crowded:
        edges = [_bus(left, right, places) for left, right in pairwise(columns)]
    else:
        edges = [_edge(info, link, places) for link in info.links]
    return render(
        "structure.html", info=info, width=WIDTH, wide=BOX, high=HEIGHT,
        height=TOP + max(map(len, columns)) * (HEIGHT + GAP) + 4, heads=_heads(columns), edges=edges,
        labels=[] if crowded else [_label(link, places) for link in info.links if link.label],
        boxes=[
            Box(part, order[i], part.parameter in pair, *places[i]) for i, part in enumerate(info.slices)
        ],
    )  # fmt: skip


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


def _heads(columns: list[list[int]]) -> list[tuple[float, str]]:
    """Where the head of every column stands, and its words."""
    names = ("Produces the unit", "Norms and vectors", "Consumes the unit")[:: 2 if len(columns) == 2 else 1]
    step = (WIDTH - BOX - 8) / (len(columns) - 1)
    return [(4 + at * step, names[at]) for at, column in enumerate(columns) if column]


def _ends(link: Link, places: dict[int, tuple[float, float]]) -> tuple[float, float, float, float, float]:
    """Start, end and how far the curve swings out."""
    (ax, ay), (bx, by) = places[link.source], places[link.target]
    start = (ax + BOX, ay + HEIGHT / 2)
    if bx > ax:
        return (*start, bx, by + HEIGHT / 2, (bx - ax - BOX) / 2)
    if bx < ax:  # data that goes on to the next layer comes back to the left
        return (ax, ay + HEIGHT / 2, bx + BOX, by + HEIGHT / 2, -(ax - bx - BOX) / 2)
    return (*start, bx + BOX, by + HEIGHT / 2, 46)


def _edge(info: StructureInfo, link: Link, places: dict[int, tuple[float, float]]) -> Edge:
    x1, y1, x2, y2, swing = _ends(link, places)
    kept = info.slices[link.source].stays or info.slices[link.target].stays
    same = places[link.source][0] == places[link.target][0]
    back = x2 + swing if same else x2 - swing
    path = f"M{x1:.0f} {y1:.0f}C{x1 + swing:.0f} {y1:.0f} {back:.0f} {y2:.0f} {x2:.0f} {y2:.0f}"
    return Edge(path, kept, " → ".join(link.ops) or "coupled through the same units")


def _bus(left: list[int], right: list[int], places: dict[int, tuple[float, float]]) -> Edge:
    """One upright line between two columns, with a short one to every box."""
    x = (places[left[0]][0] + BOX + places[right[0]][0]) / 2
    ends = [(places[i][0] + BOX, places[i][1] + HEIGHT / 2) for i in left]
    ends += [(places[i][0], places[i][1] + HEIGHT / 2) for i in right]
    heights = [y for _, y in ends]
    stubs = "".join(f"M{end:.0f} {y:.0f}H{x:.0f}" for end, y in ends)
    return Edge(f"M{x:.0f} {min(heights):.0f}V{max(heights):.0f}{stubs}")


def _label(link: Link, places: dict[int, tuple[float, float]]) -> tuple[float, float, bool, str]:
    """x, y, whether the text stands about x, and the operations.

    It stands a third of the way along, where links to one target still lie apart.
    """
    x1, y1, x2, y2, swing = _ends(link, places)
    if places[link.source][0] == places[link.target][0]:
        return x1 + swing * 0.85, (y1 + y2) / 2 + 4, False, link.label
    t, s = 0.36, 0.64
    x = s**3 * x1 + 3 * s * s * t * (x1 + swing) + 3 * s * t * t * (x2 - swing) + t**3 * x2
    y = (s**3 + 3 * s * s * t) * y1 + (3 * s * t * t + t**3) * y2
    return x, y + 4, True, link.label


def cost_html(info: StructureInfo, alone: bool = True) -> Markup:
    """What removing this unit alone saves, exactly; not `alone`: what one unit of its group saves."""
    params, macs = info.cost.params, info.cost.macs_per_token
    saved = [
        ("Parameters", f"{params:,}", _share(params, info.dense.params)),
        ("Multiply-adds per token", f"{macs:,}", _share(macs, info.dense.macs_per_token)),
        ("KV cache per token", f"{info.cost.kv_bytes_per_token:,} B", f"at {KV_BITS} bits"),
    ]
    return render("unit_cost.html", info=info, alone=alone, saved=saved)


def members_html(info: StructureInfo) -> Markup:
    """Every slice in a table: parameter, what is cut, role, size."""
    order = spreading(info.slices, info.links)
    rows = [(number, part, _role(part)) for number, part in zip(order, info.slices, strict=True)]
    return render("members.html", rows=sorted(rows, key=lambda row: row[0] or len(order) + 1))


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
