"""Have the part that speaks BGP go by what the BGPConfiguration says of it: where, and how loudly.

What decides about sessions and routes is `pycni.plan`'s.
"""

import logging
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from pycni.model.network import IPAddress, IPInterface
from pycni.model.resources_bgp import LogSeverity
from pycni.plan.inputs import Inputs

_LOGGER = "pycni.bgp"
# Of the agent's own log, and of ExaBGP's.  None: as the agent's configuration file says.  Not
# ExaBGP's DEBUG: with that it writes down its whole configuration, passwords and all.
_LEVELS: dict[LogSeverity, tuple[int | None, str]] = {
    LogSeverity.TRACE: (logging.DEBUG, "INFO"),
    LogSeverity.DEBUG: (logging.DEBUG, "INFO"),
    LogSeverity.INFO: (None, "WARNING"),
    LogSeverity.WARNING: (logging.WARNING, "WARNING"),
    LogSeverity.ERROR: (logging.ERROR, "ERROR"),
    LogSeverity.FATAL: (logging.CRITICAL, "CRITICAL"),
}
_ANYWHERE: dict[int, IPAddress] = {4: IPv4Address(0), 6: IPv6Address(0)}


class Engine(Protocol):
    """As much of the BGP engine as settings reach."""

    def listen_on(self, addresses: Sequence[IPAddress], *, port: int) -> None:
        """Accept sessions on these addresses and this port."""

    def log_at(self, level: str) -> None:
        """Log from a level on, as of the next start."""


def follow(inputs: Inputs, engine: Engine, *, stated: Sequence[IPInterface]) -> None:
    """Set both logs' levels, and have the engine listen; `stated` are the node's own addresses."""
    severity = inputs.own_bgp.log_severity or LogSeverity.INFO
    own, engines = _LEVELS[severity]
    logger, level = logging.getLogger(_LOGGER), logging.NOTSET if own is None else own
    if logger.level != level:  # this is after each pass, and setting it costs all loggers' caches
        logger.setLevel(level)
    engine.log_at(engines)
    port = inputs.listen_port_of(inputs.settings.node)
    engine.listen_on(_listening(inputs, stated), port=port)


def _listening(inputs: Inputs, stated: Sequence[IPInterface]) -> list[IPAddress]:
    """Return where peers find us, of each IP version: as stated, or as the Node object says."""
    own = {version: inputs.own_interface(version) for version in (4, 6)}
    own |= {one.version: one for one in stated}
    there = [one.ip for one in own.values() if one is not None]
    if inputs.bgp.is_bound_to_node_ip:
        return there
    # Of an IP version in which the node has no address it may be unable to listen at all.
    return [_ANYWHERE[address.version] for address in there]
