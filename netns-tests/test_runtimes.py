"""podman and containerd run containers on the network, with the agent and without it."""

import contextlib
import json
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from cluster import eventually
from runtime_machine import (
    IMAGE,
    NETWORK,
    POOL,
    RUN_DIR,
    Machine,
    machine,
    pycnictl,
    require_runtimes,
)

pytestmark = [pytest.mark.netns, pytest.mark.timeout(240)]


@pytest.fixture(params=[True, False], ids=["agent", "no-agent"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    require_runtimes("podman", "conmon", "containerd", "ctr", "runc")
    with machine(tmp_path, has_agent=request.param) as running:
        yield running


# --- what is there ------------------------------------------------------------------------------


def addresses(host: Machine) -> list[str]:
    """Return who holds each address, from the datastore."""
    shown = json.loads(pycnictl(host.directory, "ipam", "show", "--addresses", "-o", "json"))
    return [str(row) for row in shown["addresses"]]


def traces(host: Machine) -> dict[str, list[str]]:
    """Return everything that containers on the network leave while they run."""
    links = host.run("ip", "-o", "link").splitlines()
    routes = host.run("ip", "-4", "route", "show", "table", "all").splitlines()
    mounts = host.run("cat", "/proc/mounts").splitlines()
    return {
        "interfaces": [line for line in links if ": cali" in line],
        "routes": [line for line in routes if "dev cali" in line],
        "addresses": addresses(host),
        "records": host.ls(f"{RUN_DIR}/endpoints"),
        "network namespaces": host.ls("/run/netns"),
        "cached results": host.ls("/var/lib/cni/results"),
        "control groups": host.control_groups(),
        "mounts": [line for line in mounts if "/merged " in line or "/rootfs " in line],
    }


def kinds(found: dict[str, list[str]]) -> set[str]:
    return {what for what, items in found.items() if items}


def processes(host: Machine) -> set[str]:
    """Return what runs, but for the agent, its children, and the program that lists them."""
    listed = host.run("ps", "-e", "-o", "pid=,ppid=,args=").splitlines()
    rows = [line.split(maxsplit=2) for line in listed]
    agents = {pid for pid, _, words in rows if "-m pycni.agent" in words}
    for pid, parent, _ in rows:  # in the order of their numbers: parents first
        if parent in agents:
            agents.add(pid)
    return {words for pid, _, words in rows if pid not in agents and words.split()[0] != "ps"}


@contextlib.contextmanager
def nothing_is_left(host: Machine) -> Iterator[None]:
    """Compare the machine before and after; a shim may take a moment to end."""
    before, running = traces(host), processes(host)
    assert kinds(before) == set()

    yield

    eventually(
        lambda: not kinds(traces(host)) and processes(host) <= running,
        within_s=60,
        what=lambda: (traces(host), processes(host) - running),
    )


def ping(run: Callable[..., str], source: str, target: str) -> bool:
    return "1 packets received" in run(source, "ping", "-c", "1", "-W", "10", target)


def assert_in_pool(*found: str) -> None:
    assert len(set(found)) == len(found)
    assert all(ip_address(address) in ip_network(POOL) for address in found)


# --- podman -------------------------------------------------------------------------------------


def podman(host: Machine, *words: str) -> str:
    # In memory: an overlay of images can't lie on this machine's root, where that is one itself.
    places = ("--root", "/run/store/podman", "--runroot", "/run/podman")
    return host.run("podman", *places, "--tmpdir", "/run/podman.tmp", *words).strip()


def podman_run(host: Machine, name: str) -> str:
    """Start a container; return the address that podman says it has."""
    # Without NET_RAW a container can't ping: podman gives it to none.
    options = ("--network", NETWORK, "--cap-add", "NET_RAW", "--cgroup-parent", f"/{host.name}")
    podman(host, "run", "--detach", "--pull=never", "--name", name, *options, IMAGE)
    said = json.loads(podman(host, "inspect", name))[0]["NetworkSettings"]["Networks"]
    return str(said[NETWORK]["IPAddress"])


def test_podmans_containers_reach_each_other_and_leave_nothing(host: Machine) -> None:
    def run(container: str, *words: str) -> str:
        return podman(host, "exec", container, *words)

    with nothing_is_left(host):
        podman(host, "load", "--quiet", "--input", f"{host.directory}/image.tar")
        # Neither upper case nor underscores are for Kubernetes' names, which podman's look like.
        one, two = podman_run(host, "Probe_1"), podman_run(host, "Probe_2")

        assert_in_pool(one, two)
        assert f"inet {one}/32" in run("Probe_1", "ip", "address", "show", "dev", "eth0")
        assert ping(run, "Probe_1", two)
        assert ping(run, "Probe_2", one)
        assert kinds(traces(host)) == set(traces(host))

        podman(host, "rm", "--force", "--time", "0", "Probe_1", "Probe_2")
        podman(host, "rmi", IMAGE)
        assert podman(host, "ps", "--all", "--quiet") == ""
        assert podman(host, "images", "--all", "--quiet") == ""


def test_podman_restarts_a_container_with_one_address(host: Machine) -> None:
    with nothing_is_left(host):
        podman(host, "load", "--quiet", "--input", f"{host.directory}/image.tar")
        podman_run(host, "probe")
        podman(host, "restart", "--time", "0", "probe")

        assert len(addresses(host)) == 1

        podman(host, "rm", "--force", "--time", "0", "probe")
        podman(host, "rmi", IMAGE)


# --- containerd ---------------------------------------------------------------------------------


def ctr(host: Machine, *words: str) -> str:
    return host.run(*ctr_words(host, *words)).strip()


def ctr_words(host: Machine, *words: str) -> tuple[str, ...]:
    # containerd's namespaces are also the upper ones of its control groups.
    return ("ctr", "--address", "/run/containerd.sock", "--namespace", host.name, *words)


@contextlib.contextmanager
def containerd(host: Machine) -> Iterator[None]:
    """Run containerd with the image meanwhile."""
    with host.running("containerd", "--config", f"{host.directory}/containerd.toml"):
        eventually(lambda: "containerd.sock" in host.ls("/run"), within_s=60)
        ctr(host, "images", "import", f"{host.directory}/image.tar")
        yield


@contextlib.contextmanager
def ctr_running(host: Machine, name: str) -> Iterator[str]:
    """Run a container meanwhile; its address.

    Not detached: of such a container ctr never tells the plugin that it is gone.
    """
    words = ctr_words(host, "run", "--rm", "--null-io", "--cni", IMAGE, name)
    with host.running(*words) as running:
        eventually(lambda: _is_running(host, name), within_s=60)
        yield _address_of(host, name)
        ctr(host, "task", "kill", "--signal", "SIGKILL", name)
        running.wait(60)


def _is_running(host: Machine, name: str) -> bool:
    tasks = [line.split() for line in ctr(host, "task", "list").splitlines()]
    return any(task[0] == name and task[-1] == "RUNNING" for task in tasks)


def ctr_exec(host: Machine, name: str, *words: str) -> str:
    return ctr(host, "task", "exec", "--exec-id", "exec", name, *words)


def _address_of(host: Machine, name: str) -> str:
    shown = ctr_exec(host, name, "ip", "-o", "-4", "address", "show", "dev", "eth0")
    return shown.split()[3].removesuffix("/32")


def test_containerds_containers_reach_each_other_and_leave_nothing(host: Machine) -> None:
    def run(container: str, *words: str) -> str:
        return ctr_exec(host, container, *words)

    with containerd(host), nothing_is_left(host):
        with ctr_running(host, "one") as one, ctr_running(host, "two") as two:
            assert_in_pool(one, two)
            assert ping(run, "one", two)
            assert ping(run, "two", one)
            assert kinds(traces(host)) == set(traces(host)) - {"network namespaces"}

        assert ctr(host, "containers", "list", "--quiet") == ""
        ctr(host, "images", "remove", "--sync", IMAGE)
        assert ctr(host, "content", "list", "--quiet") == ""
        assert ctr(host, "snapshots", "list").splitlines()[1:] == []


def test_what_ctr_leaves_of_a_detached_container_goes_with_the_next_of_its_name(
    host: Machine,
) -> None:
    with containerd(host), nothing_is_left(host):
        ctr(host, "run", "--detach", "--null-io", "--cni", IMAGE, "one", "sleep", "600")
        ctr(host, "task", "remove", "--force", "one")
        ctr(host, "container", "remove", "one")
        left = len(addresses(host))  # ctr has told nobody, and the namespace is gone

        ctr(host, "run", "--rm", "--cni", IMAGE, "one", "ip", "address")

        assert (left, len(addresses(host))) == (1, 0)
        ctr(host, "images", "remove", "--sync", IMAGE)
