"""Which network configurations of a host are Calico's, and what of them pycni can't carry on."""

import json
from typing import Any

from pycni.migrate.network import read_networks

DIRECTORY = "/etc/cni/net.d"
OURS = {"name": "k8s-pod-network", "plugins": [{"type": "pycni"}, {"type": "portmap"}]}


def calicos(name: str = "k8s-pod-network", **changes: object) -> dict[str, Any]:
    plugin: dict[str, Any] = {
        "type": "calico",
        "datastore_type": "kubernetes",
        "ipam": {"type": "calico-ipam"},
        **changes,
    }
    return {"name": name, "plugins": [plugin, {"type": "portmap"}]}


def files(**documents: object) -> dict[str, str]:
    return {
        f"{name.replace('_', '-')}.conflist": json.dumps(one) for name, one in documents.items()
    }


def test_calicos_file_and_ours_are_known_by_their_plugins() -> None:
    found = read_networks(files(a_calico=calicos(), b_ours=OURS, z=[]), directory=DIRECTORY)

    assert (found.calico, found.own) == (("a-calico.conflist",), "b-ours.conflist")
    assert found.network == "k8s-pod-network"
    assert (found.refused, found.attention) == ((), ())


def test_a_single_plugin_is_a_network_too() -> None:
    single = {"name": "k8s-pod-network", "type": "pycni"}

    assert read_networks(files(ours=single), directory=DIRECTORY).own == "ours.conflist"


def test_without_a_configuration_of_ours_nothing_can_take_over() -> None:
    found = read_networks(
        files(a=calicos()) | {"b.conf": "no JSON", "c.conf": '{"plugins": 7}'}, directory=DIRECTORY
    )

    (sentence,) = found.refused
    assert sentence == (
        "no file of /etc/cni/net.d names the plugin pycni: install it first"
        " (./install.sh --datastore kubernetes --no-start)"
    )


def refusal(**changes: object) -> str:
    (sentence,) = read_networks(
        files(a=calicos(**changes), b=OURS),  # type: ignore[arg-type]  # keys of JSON
        directory=DIRECTORY,
    ).refused
    return sentence


def test_another_networks_name_etcd_and_other_ipam_are_refused() -> None:
    assert "'cni0' and pycni's is 'k8s-pod-network'" in refusal(name="cni0")
    assert "keeps its addresses in etcd" in refusal(datastore_type="etcdv3")
    assert "keeps its addresses in etcd" in refusal(etcd_endpoints="https://10.0.0.1:2379")
    assert "has its addresses from host-local" in refusal(ipam={"type": "host-local"})
    assert "has its addresses from no IPAM plugin" in refusal(ipam=None)


def test_a_third_network_that_would_come_first_is_refused() -> None:
    other = {"name": "flannel", "plugins": [{"type": "flannel"}]}

    found = read_networks(files(a=calicos(), b=other, c=OURS, d=other), directory=DIRECTORY)

    assert found.refused == (
        "/etc/cni/net.d/b.conflist would come before c.conflist: move it away",
    )


def test_what_calico_chains_and_we_do_not_is_told() -> None:
    ours = {"name": "k8s-pod-network", "plugins": [{"type": "pycni"}]}

    (sentence,) = read_networks(files(a=calicos(), b=ours), directory=DIRECTORY).attention

    assert "b.conflist does not chain portmap as Calico's does" in sentence
