"""pycni-ipam below the reference's macvlan, which needs a kernel that has such interfaces."""

from collections.abc import Iterator

import pytest

from conftest import namespaces
from plugin_host import NETWORK, NODE, PluginHost, plugin_host

pytestmark = [pytest.mark.uml, pytest.mark.timeout(300)]


@pytest.fixture(params=["c", "python"])
def host(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PluginHost]:
    with (
        namespaces() as make,
        plugin_host(
            tmp_path_factory.mktemp("h"), make, relay=request.param, has_agent=False
        ) as made,
    ):
        made.ctl("apply", "-f", "-", stdin=NODE)
        yield made


def test_macvlan_over_the_whole_pool(host: PluginHost) -> None:
    places = {k: v for k, v in host.config.items() if k not in ("cniVersion", "name", "type")}
    ipam = {"type": "pycni-ipam", "subnet": "pool"}
    plugin = {**places, "type": "macvlan", "master": "eth0", "ipam": ipam}
    config = {"cniVersion": "1.1.0", "name": NETWORK, "plugins": [plugin]}
    one, two = host.pod(), host.pod()

    added = [host.cnitool("add", pod, config) for pod in (one, two)]

    assert [said.status for said in added] == [0, 0], added
    assert added[0].addresses[0].endswith("/16")
    other = added[1].addresses[0].partition("/")[0]
    reached = f"nsenter --net={one.netns} ping -c 1 -W 5 {other}"
    assert "1 received" in host.namespace.sh(reached)
    assert host.cnitool("check", one, config).status == 0
    assert host.cnitool("status", one, config).status == 0
    assert "findings: 0 " in host.ctl("ipam", "check")
    for pod in (one, two, two):
        assert host.cnitool("del", pod, config).status == 0
    assert host.leftovers() == []
    assert "findings: 0 " in host.ctl("ipam", "check")
