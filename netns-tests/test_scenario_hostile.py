"""Pods, strangers and users that try what they must not: refused, and reported."""

from collections.abc import Iterator

import pytest

from cluster import DNSUTILS, Cluster, eventually, lab

pytestmark = [pytest.mark.netns, pytest.mark.alone, pytest.mark.timeout(180)]

SEND_IPIP = """
import socket, struct
inner = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 28, 1, 0, 64, 17, 0,
                    socket.inet_aton('192.168.39.193'), socket.inet_aton('192.168.39.194'))
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 4)
for _ in range(3):
    raw.sendto(inner + bytes(8), ('{target}', 0))
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with lab("hostile") as running:
        yield running


def drops(cluster: Cluster, node: str, counter: str) -> int:
    return int(cluster.status(node)["drops"][counter])


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("192.168.39.194", id="another-pod-of-the-node"),
        pytest.param("192.168.39.250", id="a-free-address-of-the-block"),
        pytest.param("192.168.247.11", id="a-pod-of-another-node"),
        pytest.param("10.10.24.89", id="a-node"),
        pytest.param("8.8.8.8", id="the-world"),
    ],
)
def test_packets_with_anothers_source_are_dropped_and_counted(
    cluster: Cluster, source: str
) -> None:
    before = drops(cluster, "node-0", "spoofed")
    cluster.run(DNSUTILS, f"ip addr add {source}/32 dev lo")
    try:
        answer = cluster.run(
            DNSUTILS, f"ping -c 2 -i 0.2 -W 1 -I {source} 192.168.247.10", check=False
        )
    finally:
        cluster.run(DNSUTILS, f"ip addr del {source}/32 dev lo")

    assert "0 received" in answer
    assert drops(cluster, "node-0", "spoofed") >= before + 2


def test_spoofed_packets_are_dropped_without_nftables_too(cluster: Cluster) -> None:
    cluster.lab("agent", "stop", "node-0")
    cluster.run("node-0", "nft flush ruleset")
    cluster.run(DNSUTILS, "ip addr add 192.168.39.194/32 dev lo")
    try:
        answer = cluster.run(
            DNSUTILS, "ping -c 2 -i 0.2 -W 1 -I 192.168.39.194 192.168.247.10", check=False
        )
    finally:
        cluster.run(DNSUTILS, "ip addr del 192.168.39.194/32 dev lo")
        cluster.lab("agent", "start", "node-0")

    assert "0 received" in answer
    eventually(lambda: bool(cluster.status("node-0")["converged"]), within_s=60)


def test_tunnel_packets_from_a_host_that_is_no_node_are_dropped_and_counted(
    cluster: Cluster,
) -> None:
    # The stand-in for tunl0 takes packets before nftables sees them; a real one comes after.
    cluster.run("node-1", "tc qdisc del dev eth0 clsact")
    before = drops(cluster, "node-1", "foreign_ipip")

    cluster.execute("outside", "python3", "-c", SEND_IPIP.format(target="10.10.24.89"))

    eventually(lambda: drops(cluster, "node-1", "foreign_ipip") == before + 3, within_s=30)
    cluster.execute("node-0", "python3", "-c", SEND_IPIP.format(target="10.10.24.89"))
    assert drops(cluster, "node-1", "foreign_ipip") == before + 3


def test_pods_may_not_send_tunnel_packets_to_nodes(cluster: Cluster) -> None:
    before = drops(cluster, "node-0", "pod_tunnel")

    cluster.execute(DNSUTILS, "python3", "-c", SEND_IPIP.format(target="10.10.43.25"))

    eventually(lambda: drops(cluster, "node-0", "pod_tunnel") == before + 3, within_s=30)


CONNECT = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
s = socket.socket(socket.AF_UNIX)
try:
    s.connect(sys.argv[1])
    s.sendall(b'{"question": "status"}\\n')
    s.shutdown(socket.SHUT_WR)
    print("answer:", s.recv(100))
except PermissionError:
    print("refused")
except (ConnectionResetError, BrokenPipeError):
    print("answer: b''")
"""


@pytest.mark.parametrize("name", ["cni.sock", "control.sock"])
def test_ordinary_users_can_not_reach_the_sockets(cluster: Cluster, name: str) -> None:
    run_dir = f"/run/pycni-lab/{cluster.name}/node-0/run"

    said = cluster.execute("node-0", "python3", "-c", CONNECT, f"{run_dir}/{name}")

    assert said.strip() == "refused"


@pytest.mark.parametrize("name", ["cni.sock", "control.sock"])
def test_ordinary_users_are_refused_even_where_the_modes_are_open(
    cluster: Cluster, name: str
) -> None:
    run_dir = f"/run/pycni-lab/{cluster.name}/node-0/run"
    eventually(lambda: refused(cluster) >= 0, within_s=60)
    before = refused(cluster)
    cluster.run("node-0", f"chmod 755 {run_dir}; chmod 666 {run_dir}/{name}")

    said = cluster.execute("node-0", "python3", "-c", CONNECT, f"{run_dir}/{name}")

    cluster.run("node-0", f"chmod 600 {run_dir}/{name}")
    assert said.strip() == "answer: b''"
    # The CNI server reports now and then.
    eventually(lambda: refused(cluster) == before + 1, within_s=30)


def refused(cluster: Cluster) -> int:
    """Return how many connections node-0 has refused; raise `NotYet` while it doesn't say."""
    metrics = cluster.run("node-0", "curl -s http://127.0.0.1:9091/metrics")
    line = next(x for x in metrics.splitlines() if x.startswith("pycni_refused_connections "))
    return int(float(line.split()[1]))


@pytest.mark.parametrize("password", ['a"; } process x { run /bin/sh; }', "a\nb", "a'b", "{}"])
def test_passwords_made_for_exabgps_parser_are_refused(cluster: Cluster, password: str) -> None:
    base = f"/run/pycni-lab/{cluster.name}"
    script = (
        "import json, subprocess, sys\n"
        "m = {'apiVersion': 'projectcalico.org/v3', 'kind': 'BGPPeer',"
        " 'metadata': {'name': 'evil'},"
        f" 'spec': {{'peerIP': '203.0.113.10', 'asNumber': 64513, 'password': {password!r}}}}}\n"
        f"r = subprocess.run(['{base}/venv/bin/python', '-I', '-m', 'pycni.ctl', '--datastore',"
        f" '{base}/datastore.db', 'apply', '-f', '-'], input=json.dumps(m), text=True,"
        " capture_output=True)\n"
        "print(r.returncode, r.stderr)\n"
    )

    said = cluster.execute("node-0", "python3", "-c", script)

    assert said.startswith("1 error:")
    assert "password" in said
    assert "evil" not in cluster.run("node-0", f"cat {base}/node-0/run/exabgp/exabgp.conf")
