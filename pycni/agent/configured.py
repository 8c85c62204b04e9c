"""Learn or forget what operators configure: pools, nodes, peers, filters, settings.

No input or output.
"""

from typing import TypeVar, assert_never

from pycni.model.resources import IPPool, Node, Resource
from pycni.model.resources_bgp import BGPConfiguration, BGPFilter, BGPPeer
from pycni.plan.inputs import Inputs

Configured = IPPool | Node | BGPPeer | BGPFilter | BGPConfiguration

K = TypeVar("K")
V = TypeVar("V")


def set_or_drop(mapping: dict[K, V], key: K, value: V | None) -> None:
    """Have a mapping hold a value; None: nothing under that key."""
    if value is None:
        mapping.pop(key, None)
    else:
        mapping[key] = value


def set_configured(inputs: Inputs, name: str, value: Resource | None, subject: Configured) -> None:
    """Learn or forget what operators configure; `subject` is the value, or what it was."""
    match subject:
        case IPPool():
            set_or_drop(inputs.pools, name, value if isinstance(value, IPPool) else None)
            inputs.pool_history.add(subject.cidr)
        case Node():
            inputs.set_node(name, value if isinstance(value, Node) else None)
        case BGPPeer():
            set_or_drop(inputs.peers, name, value if isinstance(value, BGPPeer) else None)
        case BGPFilter():
            set_or_drop(inputs.filters, name, value if isinstance(value, BGPFilter) else None)
        case BGPConfiguration():
            known = value if isinstance(value, BGPConfiguration) else None
            inputs.set_bgp(subject.node, known)
        case _:
            assert_never(subject)
