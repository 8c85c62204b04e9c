"""Where ExaBGP is to listen, and how loud it and the agent's own part of BGP are."""

import logging
from collections.abc import Iterator, Sequence
from ipaddress import ip_interface

import pytest

from pycni.agent import bgp_settings
from pycni.model.network import IPAddress
from pycni.model.resources import Node
from pycni.model.resources_bgp import BGPConfiguration, LogSeverity
from pycni.plan.inputs import Inputs, Settings

BOTH = Node("node-0", ipv4=ip_interface("10.0.0.5/24"), ipv6=ip_interface("fd00::5/64"))


class Told:
    """A BGP engine that remembers what it was told."""

    def __init__(self) -> None:
        self.listens: list[str] = []
        self.port = 0
        self.level = ""

    def listen_on(self, addresses: Sequence[IPAddress], *, port: int) -> None:
        self.listens, self.port = [str(address) for address in addresses], port

    def log_at(self, level: str) -> None:
        self.level = level


@pytest.fixture(autouse=True)
def _usual_level() -> Iterator[None]:
    logger = logging.getLogger("pycni.bgp")
    yield
    logger.setLevel(logging.NOTSET)


def told(*settings: BGPConfiguration, node: Node = BOTH, stated: Sequence[str] = ()) -> Told:
    inputs, engine = Inputs(Settings(node="node-0")), Told()
    inputs.set_node(node.name, node)
    for one in settings:
        inputs.set_bgp(one.node, one)
    bgp_settings.follow(inputs, engine, stated=[ip_interface(text) for text in stated])
    return engine


def test_sessions_are_accepted_at_the_nodes_own_addresses() -> None:
    assert (told().listens, told().port) == (["10.0.0.5", "fd00::5"], 179)
    assert told(stated=["10.9.9.9/24"]).listens == ["10.9.9.9", "fd00::5"]
    assert told(node=Node("node-0")).listens == []


def test_unbound_they_are_accepted_at_all_addresses_of_the_nodes_ip_versions() -> None:
    unbound = BGPConfiguration(is_bound_to_node_ip=False)

    assert told(unbound).listens == ["0.0.0.0", "::"]  # as asked for
    assert told(unbound, node=Node("node-0", ipv4=BOTH.ipv4)).listens == ["0.0.0.0"]
    assert told(unbound, node=Node("node-0")).listens == []


def test_the_nodes_own_port_goes_before_that_of_all_nodes() -> None:
    common, own = BGPConfiguration(listen_port=1790), BGPConfiguration("node.node-0", listen_port=1)

    assert (told(common).port, told(common, own).port) == (1790, 1)


@pytest.mark.parametrize(
    ("severity", "effective", "engines"),
    [
        (None, logging.INFO, "WARNING"),
        (LogSeverity.TRACE, logging.DEBUG, "INFO"),
        (LogSeverity.DEBUG, logging.DEBUG, "INFO"),
        (LogSeverity.INFO, logging.INFO, "WARNING"),
        (LogSeverity.WARNING, logging.WARNING, "WARNING"),
        (LogSeverity.ERROR, logging.ERROR, "ERROR"),
        (LogSeverity.FATAL, logging.CRITICAL, "CRITICAL"),
    ],
)
def test_both_logs_are_as_loud_as_the_settings_say(
    caplog: pytest.LogCaptureFixture, severity: LogSeverity | None, effective: int, engines: str
) -> None:
    caplog.set_level(logging.INFO)  # as agent.yaml says
    told(BGPConfiguration(log_severity=LogSeverity.FATAL))

    engine = told(BGPConfiguration(log_severity=severity))

    assert logging.getLogger("pycni.bgp.speaker").getEffectiveLevel() == effective
    assert engine.level == engines
    assert logging.getLogger("pycni.agent.daemon").getEffectiveLevel() == logging.INFO
