"""What judgements of many paths share: the sessions they came by, and this node's own prefixes.

It holds for one moment: made of the inputs for one pass, and thrown away before they change.
"""

from pycni.model.network import IPAddress, IPNetwork
from pycni.plan.inputs import Inputs, host_prefix
from pycni.plan.peering import Session, session_with


class Ground:
    """Works each thing out once, when it is first asked for."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self._sessions: dict[IPAddress, Session] = {}
        self._own: dict[IPNetwork, str] | None = None

    def session(self, peer: IPAddress) -> Session:
        """Return what this node's session with an address is."""
        known = self._sessions.get(peer)
        if known is None:
            known = self._sessions[peer] = session_with(self.inputs, peer)
        return known

    def interface_of(self, prefix: IPNetwork) -> str | None:
        """Return the interface whose address or subnet a prefix is, None when it is neither."""
        if self._own is None:
            self._own = {}
            for address in self.inputs.addresses:
                for own in (host_prefix(address.interface.ip), address.interface.network):
                    self._own[own] = address.ifname
        return self._own.get(prefix)
