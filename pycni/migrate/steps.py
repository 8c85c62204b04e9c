"""The steps of a migration and of the way back, and what an operator reads of each.  Pure."""

from dataclasses import dataclass, field
from typing import assert_never

from pycni.migrate.firewall import chains_in
from pycni.migrate.record import Moved
from pycni.model.endpoints import WorkloadEndpoint, pod_of
from pycni.model.network import Route
from pycni.plan.iproute import PROTOCOL_NAMES, route_text


@dataclass(frozen=True, slots=True)
class Rename:
    """Give a network configuration another name."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class TakeOver:
    """Write the endpoint's record, and whose it is to its host interface."""

    endpoint: WorkloadEndpoint


@dataclass(frozen=True, slots=True)
class LetGo:
    """Take both away again; the pod keeps interface, routes and address."""

    endpoint: WorkloadEndpoint


@dataclass(frozen=True, slots=True)
class HandOver:
    """Give a route another protocol, in place; without a `new` one there is such a one already."""

    old: Route
    new: Route | None


@dataclass(frozen=True, slots=True)
class RemoveRules:
    """Take Calico's chains out of a firewall; `program` is what restores."""

    program: str
    removal: str


@dataclass(frozen=True, slots=True)
class RemoveTable:
    """Delete an nftables table ("family name")."""

    table: str


@dataclass(frozen=True, slots=True)
class ClearCondition:
    """Say in the cluster that the node has a network."""

    node: str


Step = Rename | TakeOver | LetGo | HandOver | RemoveRules | RemoveTable | ClearCondition


@dataclass(slots=True)
class Plan:
    """What would be done, and sentences: `refused` for good, to be done `first`, to be minded.

    `kept` goes on as it is, `left` are addresses that stay with whoever has them.
    """

    title: str
    steps: list[Step] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    first: list[str] = field(default_factory=list)
    attention: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def is_possible(self) -> bool:
        """Whether nothing stands in the way now."""
        return not self.refused and not self.first


def moved(plan: Plan) -> tuple[Moved, ...]:
    """Return what a plan renames."""
    return tuple(Moved(one.source, one.target) for one in plan.steps if isinstance(one, Rename))


def protocols(plan: Plan) -> tuple[tuple[str, int], ...]:
    """Return the protocols of the routes that a plan hands over, by destination."""
    return tuple(
        (str(one.old.key.dst), one.old.protocol) for one in plan.steps if isinstance(one, HandOver)
    )


def step_text(step: Step) -> str:
    """Return a step in a line."""
    match step:
        case Rename():
            return f"rename {step.source} to {step.target}"
        case TakeOver():
            return f"take over {endpoint_text(step.endpoint)}"
        case LetGo():
            return f"let go of {endpoint_text(step.endpoint)}"
        case HandOver():
            return _hand_over_text(step.old, step.new)
        case RemoveRules():
            return f"remove Calico's {chains_in(step.removal)} chains by {step.program}"
        case RemoveTable():
            return f"delete the nftables table {step.table}"
        case ClearCondition():
            return f"set the condition NetworkUnavailable of Node {step.node} to False"
        case _:
            assert_never(step)


def _hand_over_text(old: Route, new: Route | None) -> str:
    if new is None:
        return f"delete {route_text(old)}: there is one of the wanted protocol"
    protocol = PROTOCOL_NAMES.get(new.protocol, str(new.protocol))
    return f"replace {route_text(old)} by one of protocol {protocol}"


def endpoint_text(endpoint: WorkloadEndpoint) -> str:
    """Return whose an endpoint is, by which interface, and what holds its addresses."""
    addresses = ", ".join(str(one.interface.ip) for one in endpoint.addresses)
    return f"{pod_of(endpoint)}: {addresses} by {endpoint.host_veth} (handle {endpoint.handle_id})"


def plan_text(plan: Plan) -> str:
    """Return a whole plan, part by part; what is empty is left out."""
    parts = {
        "goes on as it is": plan.kept,
        "ATTENTION": plan.attention,
        "refused": plan.refused,
        "first": plan.first,
        "left alone": plan.left,
        "steps": [f"{n}. {step_text(one)}" for n, one in enumerate(plan.steps, start=1)],
    }
    lines = [plan.title]
    for title, sentences in parts.items():
        if sentences:
            lines += ["", f"{title}:", *(f"  {one}" for one in sentences)]
    return "\n".join(lines)
