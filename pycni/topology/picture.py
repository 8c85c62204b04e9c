"""A cluster on paper as a picture (SVG 1.1): nodes by subnet, routers above them, and sessions.

Pure.  Nodes stand in one row, so that no session runs behind a box: their sessions are arcs below
the row, those of routers with each other arcs above theirs, and straight lines join the two rows.
What stands in a box is what the node has: its addresses, and the routes between nodes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from xml.etree import ElementTree as ET

from pycni.model.network import Route, RouteType
from pycni.plan.inputs import Inputs
from pycni.topology.model import Topology, TopologyNode, TopologyRouter
from pycni.topology.predict import Prediction
from pycni.topology.sessions import Line, lines

_GAP, _MARGIN = 30, 40
_LINE, _HEAD, _PAD, _LETTER = 15, 24, 10, 6.7
_FONT = "font-family:ui-monospace,Menlo,Consolas,monospace;font-size:11px"
_COLOURS = {"iBGP": "#2b6cb0", "eBGP": "#c05621", "not up": "#c53030"}
_DASHED = "8 4"
"""Of what is not up: red and orange are one colour to many."""
_WORDS = {
    "iBGP": "iBGP session",
    "eBGP": "eBGP session",
    "not up": "wanted by one end only, or with other AS numbers",
}


@dataclass(frozen=True, slots=True)
class _Box:
    """Where something stands, in pixels; `is_above` in the row of the routers."""

    left: float
    top: float
    width: float
    height: float
    is_above: bool

    @property
    def centre(self) -> float:
        return self.left + self.width / 2

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def bottom(self) -> float:
        return self.top + self.height


def picture(topology: Topology, prediction: Prediction) -> str:
    """Return the picture's text, a whole SVG document."""
    sessions = lines(topology, prediction.inputs)
    texts = {n.name: _node_text(n, prediction) for n in topology.nodes}
    texts |= {r.name: _router_text(r) for r in topology.routers}
    for own, other in (line.ends for line in sessions):
        if other not in texts:
            texts[own].append(f"calls {other}, which is not in this file")
    boxes, size = _places(topology, texts, sessions)
    root = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "style": _FONT, **_size(size)})
    ET.SubElement(root, "title").text = topology.name
    ET.SubElement(root, "rect", {"width": "100%", "height": "100%", "fill": "#ffffff"})
    _draw_subnets(root, topology, boxes)
    for line in sessions:
        _draw_session(root, line, boxes)
    for name, box in boxes.items():
        _draw_box(root, name, box, texts[name], is_router=name not in prediction.inputs)
    _draw_legend(root, sessions, at=size[1] - _MARGIN / 2)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def _size(size: tuple[float, float]) -> dict[str, str]:
    width, height = (f"{one:.0f}" for one in size)
    return {"viewBox": f"0 0 {width} {height}", "width": width, "height": height}


# --- what is said -------------------------------------------------------------------------------


def _node_text(node: TopologyNode, prediction: Prediction) -> list[str]:
    inputs = prediction.inputs[node.name]
    addresses = [str(one) for one in (node.address, node.address6) if one is not None]
    learned = sorted(
        (route for key, (route, *_) in prediction.states[node.name].routes.items()
         if route.protocol == inputs.settings.route_protocol),
        key=lambda route: (route.key.dst.version, route.key.dst),
    )  # fmt: skip
    return [f"AS {_as_number(inputs)}", *addresses, *map(_route_text, learned)]


def _route_text(route: Route) -> str:
    if route.type is RouteType.BLACKHOLE:
        return f"{route.key.dst} is here"
    gateways = sorted(str(hop.gateway) for hop in route.next_hops if hop.gateway is not None)
    way = f"by {' and '.join(gateways)}" if gateways else "directly"
    return f"{route.key.dst} {way}, {' '.join(sorted(route.oifs))}"


def _as_number(inputs: Inputs) -> int:
    node = inputs.node
    return (node.as_number if node is not None else None) or inputs.bgp.as_number


def _router_text(router: TopologyRouter) -> list[str]:
    text = [f"AS {router.as_number}", *(str(end) for end in router.ends)]
    return text if router.cluster_id is None else [*text, f"reflects, cluster {router.cluster_id}"]


# --- where it stands ----------------------------------------------------------------------------


def _places(
    topology: Topology, texts: Mapping[str, Sequence[str]], sessions: Sequence[Line]
) -> tuple[dict[str, _Box], tuple[float, float]]:
    """Return every box, and the size of the whole."""
    nodes = sorted(topology.nodes, key=lambda node: node.address.network)
    longest = max(len(line) for text in texts.values() for line in text)
    column = longest * _LETTER + 2 * _PAD + _GAP
    width = max(len(nodes), len(topology.routers)) * column - _GAP + 2 * _MARGIN
    top = float(_MARGIN)
    boxes: dict[str, _Box] = {}
    for row in ([one.name for one in topology.routers], [one.name for one in nodes]):
        is_above = bool(row) and row[0] not in [node.name for node in nodes]
        top += _depth(row, sessions, column) if is_above else 0
        height = _HEAD + _LINE * max((len(texts[name]) for name in row), default=0) + _PAD
        step = (width - 2 * _MARGIN + _GAP) / max(len(row), 1)
        for at, name in enumerate(row):
            left = _MARGIN + at * step + (step - column) / 2
            boxes[name] = _Box(left, top, column - _GAP, height, is_above)
        top += height + 3 * _MARGIN if row else 0
    bottom = max(box.bottom for box in boxes.values())
    depth = _depth([node.name for node in nodes], sessions, column)
    return boxes, (width, bottom + depth + 2 * _MARGIN)


def _depth(names: Sequence[str], sessions: Sequence[Line], column: float) -> float:
    """Return how much room the arcs of a row take."""
    spans = [
        abs(names.index(one) - names.index(other))
        for one, other in (line.ends for line in sessions)
        if one in names and other in names
    ]
    return _bend(max(spans) * column) if spans else 0.0


def _bend(distance: float) -> float:
    """Return how deep an arc between two boxes is."""
    return 0.07 * distance + 15


# --- the drawing --------------------------------------------------------------------------------


def _draw_subnets(root: ET.Element, topology: Topology, boxes: Mapping[str, _Box]) -> None:
    nodes = sorted(topology.nodes, key=lambda node: node.address.network)
    for subnet, members in groupby(nodes, key=lambda node: node.address.network):
        inside = [boxes[node.name] for node in members]
        left, top = inside[0].left - _GAP / 3, inside[0].top - _MARGIN / 2
        right = inside[-1].right + _GAP / 3
        bottom = max(box.bottom for box in inside) + _PAD
        _rectangle(root, (left, top, right - left, bottom - top), fill="#edf2f7", stroke="none")
        _text(root, (left + 6, top + 13), str(subnet), fill="#4a5568")


def _draw_box(
    root: ET.Element, name: str, box: _Box, text: Sequence[str], *, is_router: bool
) -> None:
    fill = "#fefcbf" if is_router else "#ffffff"
    place = (box.left, box.top, box.width, box.height)
    _rectangle(root, place, fill=fill, stroke="#4a5568")
    head = _text(root, (box.left + _PAD, box.top + 17), name, fill="#1a202c")
    head.set("font-weight", "bold")
    for at, line in enumerate(text):
        place_of_line = (box.left + _PAD, box.top + _HEAD + _LINE * (at + 0.8))
        _text(root, place_of_line, line, fill="#2d3748")


def _draw_session(root: ET.Element, line: Line, boxes: Mapping[str, _Box]) -> None:
    if any(end not in boxes for end in line.ends):
        return
    kind = _kind(line)
    one, other = (boxes[end] for end in line.ends)
    shape = {
        "d": _path(one, other, line.version),
        "fill": "none",
        "stroke": _COLOURS[kind],
        "stroke-width": "1.5",
    }
    if line.version == 6:
        shape["stroke-dasharray"] = "2 3"
    elif not line.is_up:
        shape["stroke-dasharray"] = _DASHED
    path = ET.SubElement(root, "path", shape)
    numbers = f"AS {line.numbers[0]}" if line.is_internal else "AS {} and {}".format(*line.numbers)
    if not line.is_up:
        numbers = f"{line.ends[0]} wants {numbers}"
    what = f"{line.ends[0]} and {line.ends[1]}: {_WORDS[kind]}, IPv{line.version}, {numbers}"
    ET.SubElement(path, "title").text = f"{what}, by {line.by}"


def _kind(line: Line) -> str:
    if not line.is_up:
        return "not up"
    return "iBGP" if line.is_internal else "eBGP"


def _path(one: _Box, other: _Box, version: int) -> str:
    """Return the way between two boxes: an arc within a row, else a straight line.

    The session over IPv6 runs beside that over IPv4.
    """
    aside = 8 if version == 6 else 0
    if one.is_above == other.is_above:
        start = one.top if one.is_above else one.bottom
        # The curve goes half as far as the point that it is drawn to.
        bend = 2 * (_bend(abs(one.centre - other.centre)) + aside) * (-1 if one.is_above else 1)
        middle = (one.centre + other.centre) / 2
        arc = f"Q {middle:.0f} {start + bend:.0f} {other.centre:.0f} {start:.0f}"
        return f"M {one.centre:.0f} {start:.0f} {arc}"
    upper, lower = (one, other) if one.is_above else (other, one)
    ends = (upper.centre + aside, upper.bottom, lower.centre + aside, lower.top)
    return "M {:.0f} {:.0f} L {:.0f} {:.0f}".format(*ends)


def _draw_legend(root: ET.Element, sessions: Sequence[Line], *, at: float) -> None:
    left = float(_MARGIN)
    kinds = {_kind(line) for line in sessions}
    for kind in (kind for kind in _COLOURS if kind in kinds):
        stroke = {"stroke": _COLOURS[kind], "stroke-width": "2"}
        if kind == "not up":
            stroke["stroke-dasharray"] = _DASHED
        ends = {"x1": f"{left:.0f}", "x2": f"{left + 24:.0f}", "y1": f"{at - 4:.0f}"}
        ET.SubElement(root, "line", {**ends, "y2": f"{at - 4:.0f}", **stroke})
        _text(root, (left + 30, at), _WORDS[kind], fill="#4a5568")
        left += 50 + 7 * len(_WORDS[kind])
    if any(line.version == 6 for line in sessions):
        _text(root, (left, at), "dotted: over IPv6", fill="#4a5568")


def _rectangle(
    root: ET.Element, place: tuple[float, float, float, float], *, fill: str, stroke: str
) -> None:
    names = ("x", "y", "width", "height")
    where = {name: f"{one:.0f}" for name, one in zip(names, place, strict=True)}
    ET.SubElement(root, "rect", {**where, "rx": "4", "fill": fill, "stroke": stroke})


def _text(root: ET.Element, place: tuple[float, float], text: str, *, fill: str) -> ET.Element:
    where = {"x": f"{place[0]:.0f}", "y": f"{place[1]:.0f}", "fill": fill}
    element = ET.SubElement(root, "text", where)
    element.text = text
    return element
