"""Why a pod gets no address: each reason on a real node, with its sentence in docs/addresses.md.

Those that take several nodes, borrowed addresses first of all: `test_scenario_pools.py`.
"""

import os
import signal

import pytest

from addresses_page import require_documented
from cluster import renew_server
from plugin_host import PluginHost, installed_by
from pycni.ctl.agentlink import ask

pytestmark = [pytest.mark.netns, pytest.mark.timeout(240)]

POOL = """\
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {{name: small}}
spec: {{cidr: 10.9.0.0/29, blockSize: 31, {more}}}
"""
CONFIG = """\
apiVersion: projectcalico.org/v3
kind: IPAMConfiguration
metadata: {{name: default}}
spec: {{{more}}}
"""
RESERVATION = """\
apiVersion: projectcalico.org/v3
kind: IPReservation
metadata: {name: kept}
spec: {reservedCIDRs: [10.9.0.0/30, 10.9.0.4/31, 10.9.0.6]}
"""


installed = installed_by(("c", True), ("c", False), scope="function")


@pytest.fixture
def host(installed: PluginHost) -> PluginHost:
    """Hand out a host without pool."""
    installed.ctl("delete", "pool", "default")
    return installed


def apply(host: PluginHost, text: str) -> None:
    host.ctl("apply", "-f", "-", stdin=text)
    renew(host)


def renew(host: PluginHost) -> None:
    """Have a CNI server, where there is one, that knows of no time before."""
    run_dir = host.directory / "run"
    if (run_dir / "control.sock").exists():
        renew_server(
            lambda: ask(run_dir, "status")["cni_pid"], lambda pid: os.kill(pid, signal.SIGKILL)
        )


def test_a_pool_that_is_full(host: PluginHost) -> None:
    apply(host, POOL.format(more="natOutgoing: false"))
    for number in range(8):
        assert host.call("ADD", host.pod(f"pod-{number}")).status == 0
    late = host.pod()

    said = host.call("ADD", late)

    assert said.code == 11
    require_documented(said.document["msg"])
    apply(
        host,
        POOL.format(more="natOutgoing: false").replace("small", "more").replace("10.9", "10.8"),
    )
    assert host.call("ADD", late).addresses[0].startswith("10.8.0.")


def test_a_node_that_owns_its_limit_of_blocks(host: PluginHost) -> None:
    apply(host, POOL.format(more="natOutgoing: false"))
    apply(host, CONFIG.format(more="maxBlocksPerHost: 1"))
    pods = [host.pod(f"pod-{number}") for number in range(3)]
    for pod in pods[:2]:
        assert host.call("ADD", pod).status == 0

    said = host.call("ADD", pods[2])

    assert said.code == 11
    require_documented(said.document["msg"])
    apply(host, CONFIG.format(more="maxBlocksPerHost: 2"))
    assert host.call("ADD", pods[2]).status == 0


def test_addresses_that_rest(host: PluginHost) -> None:
    apply(host, POOL.format(more="natOutgoing: false"))
    apply(host, CONFIG.format(more="ipCooldownSeconds: 600, strictAffinity: true"))
    pods = [host.pod(f"pod-{number}") for number in range(8)]
    given = [host.call("ADD", pod).addresses[0] for pod in pods]
    assert len(set(given)) == 8
    assert host.call("DEL", pods[0]).status == 0

    said = host.call("ADD", pods[0])

    assert said.code == 11
    require_documented(said.document["msg"])
    settings = "ipCooldownSeconds: 600, strictAffinity: true, maxBlocksPerHost: 1"
    apply(host, CONFIG.format(more=settings))
    said = host.call("ADD", pods[0])
    assert "the limit is 1" in said.document["msg"]
    require_documented(said.document["msg"])
    apply(host, CONFIG.format(more="ipCooldownSeconds: 0, strictAffinity: true"))
    assert host.call("ADD", pods[0]).addresses == [given[0]]


def test_addresses_that_are_reserved(host: PluginHost) -> None:
    apply(host, POOL.format(more="natOutgoing: false"))
    apply(host, RESERVATION)
    assert host.call("ADD", host.pod("one")).addresses == ["10.9.0.7/32"]

    said = host.call("ADD", host.pod("two"))

    assert said.code == 11
    require_documented(said.document["msg"])
    # Who asks for one of them gets it.
    named = host.call("ADD", host.pod("three"), {"runtimeConfig": {"ips": ["10.9.0.2"]}})
    assert named.addresses == ["10.9.0.2/32"]


def test_a_pool_for_other_nodes(host: PluginHost) -> None:
    apply(host, POOL.format(more="nodeSelector: \"rack == 'b'\""))

    said = host.call("ADD", host.pod("one"))

    assert said.code == 11
    require_documented(said.document["msg"])
