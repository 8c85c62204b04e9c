"""Look at a node that is to migrate, and at its cluster: reads, and changes nothing."""

import asyncio
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pycni.cni.netconf import RUNTIMES_SUFFIXES
from pycni.datastore.opening import Documents
from pycni.endpoints import FileEndpoints
from pycni.errors import InvalidInput, ServerAway, TryAgain
from pycni.kernel.linux import LinuxKernel
from pycni.migrate.cluster import PATHS, Verdict, judge
from pycni.migrate.firewall import nft_tables_of, removal_of
from pycni.migrate.network import read_networks
from pycni.migrate.plan import Agent, Found
from pycni.migrate.podends import find_ends
from pycni.model.endpoints import WorkloadEndpoint
from pycni.model.network import PROTOCOL_BIRD
from pycni.model.resources import Block, IPPool
from pycni.ports import Datastore
from pycni.programs import output_of

DAEMONS = frozenset({"calico-node", "bird", "bird6", "confd"})
"""Calico's programs on a node, as the kernel calls them."""
PLUGINS = frozenset({"calico", "calico-ipam"})
_PROCESSES = Path("/proc")
SAVES = (
    ("iptables-nft", None),
    ("ip6tables-nft", None),
    ("iptables-legacy", _PROCESSES / "net" / "ip_tables_names"),
    ("ip6tables-legacy", _PROCESSES / "net" / "ip6_tables_names"),
)
"""The firewalls' programs; for the older ones, where the kernel says which tables there are."""


@dataclass(frozen=True, slots=True)
class Node:
    """The node that migrates, and where its things are."""

    name: str
    run_dir: Path
    state_dir: Path
    net_dir: Path
    route_protocol: int = PROTOCOL_BIRD

    def open_endpoints(self) -> FileEndpoints:
        """Open the files that agent and engines use."""
        return FileEndpoints(run_dir=self.run_dir, state_dir=self.state_dir)


async def look_at_cluster(documents: Documents) -> Verdict:
    """Judge all of the cluster's settings that may be read with these credentials."""
    found = {}
    unread = {}
    for path in PATHS:
        try:
            found[path] = await documents.list(path)
        except ServerAway:
            raise
        except (TryAgain, InvalidInput) as exc:
            unread[path] = str(exc)
    return judge(found, unread=unread)


async def look_at_node(node: Node, datastore: Datastore, *, agent: Agent) -> Found:
    """Read kernel, files, processes, records, and the books of addresses."""
    kernel = LinuxKernel()
    try:
        state = await kernel.snapshot([])
    finally:
        kernel.close()
    records, debts = _read_records(node)
    return Found(
        node=node.name,
        kernel=state,
        networks=read_networks(read_files(node.net_dir), directory=str(node.net_dir)),
        pools=tuple(one.value.cidr for one in (await datastore.list(IPPool)).items),
        blocks=tuple(one.value for one in (await datastore.list(Block)).items),
        ends=await asyncio.to_thread(find_ends),
        records=records,
        processes=tuple(processes(DAEMONS)),
        firewall=await firewalls(),
        tables=tuple(nft_tables_of(await _nft("tables"))),
        agent=agent,
        debts=debts,
        route_protocol=node.route_protocol,
    )


def _read_records(node: Node) -> tuple[tuple[WorkloadEndpoint, ...], int]:
    """Return the records and how many releases are owed; where there are no files, none is made."""
    if not (node.run_dir / "endpoints").is_dir():
        return (), 0
    endpoints = node.open_endpoints()
    records, complaints = endpoints.readable()
    if complaints:
        raise InvalidInput("; ".join(complaints))
    return tuple(records), len(endpoints.pending())


def read_files(directory: Path) -> dict[str, str]:
    """Return what a runtime finds in the directory of network configurations."""
    if not directory.is_dir():
        return {}
    return {
        path.name: path.read_text(encoding="utf-8", errors="replace")
        for path in directory.iterdir()
        if path.suffix in RUNTIMES_SUFFIXES
    }


def processes(names: frozenset[str]) -> list[str]:
    """Return the programs of these names that work in our network namespace, each with its pid."""
    own = os.stat("/proc/thread-self/ns/net").st_ino  # noqa: PTH116 - a link that leads nowhere
    found = []
    for process in _PROCESSES.iterdir():
        try:
            name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
            is_here = name in names and (process / "ns" / "net").stat().st_ino == own
        except OSError:  # it has ended, or was no process
            continue
        if is_here:
            found.append(f"{name} (pid {process.name})")
    return sorted(found)


async def firewalls() -> Mapping[str, str]:
    """Return what takes Calico's rules out of each firewall that has some, by the program."""
    found = {}
    for program, tables in SAVES:
        save, restore = f"{program}-save", f"{program}-restore"
        # To ask for older tables where there are none would make some.
        if tables is not None and not _has_tables(tables):
            continue
        if shutil.which(save) is None:
            await _require_no_rules(save, is_older=tables is not None)
            continue
        removal = removal_of(await output_of(save))
        if removal:
            found[restore] = removal
    return found


async def _require_no_rules(save: str, *, is_older: bool) -> None:
    """Raise `InvalidInput` where Calico's rules may be, and can't be read."""
    if is_older or "chain cali-" in await _nft("chains"):
        raise InvalidInput(
            f"cannot read this firewall, which has to be rid of Calico's rules: there is no {save}"
            " here; install iptables, and run this on the host, not in a container"
        )


async def _nft(what: str) -> str:
    return await output_of("nft", "list", what) if shutil.which("nft") else ""


def _has_tables(names: Path) -> bool:
    try:
        return bool(names.read_text(encoding="ascii").strip())
    except OSError:
        return False
