"""What `pycnictl ipam` reads: the books, and this node's records from its agent."""

import argparse
import asyncio
import time
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from pycni.ctl.agent import DEFAULT_RUN_DIR
from pycni.ctl.agentlink import ask
from pycni.ctl.usage import WrongUsage
from pycni.datastore.opening import OpenDatastore
from pycni.endpoints import FileEndpoints
from pycni.errors import DatastoreUnusable, InvalidInput, TryAgain
from pycni.ipam import block as arithmetic
from pycni.ipam.audit import audit
from pycni.ipam.books import Books, NodeRecords, awake, key_of, netns_of, node_of
from pycni.ipam.cooldown import Cooldown
from pycni.ipam.findings import Finding
from pycni.ipam.lookup import read_books
from pycni.ipam.requests import DatastoreView
from pycni.model.endpoints import EndpointKey
from pycni.model.network import IPAddress
from pycni.model.records import parse_endpoint, parse_pending

SECOND_LOOK_S = 0.1
"""How long a request that is under way may need to finish, before a finding is believed."""


@dataclass(frozen=True, slots=True)
class LocalAgent:
    """The agent of this machine: its node's records, and where they are kept."""

    records: NodeRecords
    run_dir: Path
    state_dir: Path

    @property
    def node(self) -> str:
        """The node that it serves."""
        return self.records.node

    def open_endpoints(self) -> FileEndpoints:
        """Open the very files that agent and engines use, for their locks."""
        return FileEndpoints(run_dir=self.run_dir, state_dir=self.state_dir)


@dataclass(frozen=True, slots=True)
class Reading:
    """The books, the agent of this machine if there is one, and why there is none to ask."""

    books: Books
    agent: LocalAgent | None = None
    note: str = ""


def add_run_dir_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--run-dir`, where the agent of this machine is asked."""
    parser.add_argument(
        "--run-dir", type=Path, default=DEFAULT_RUN_DIR, help="the agent's run directory"
    )


def address_argument(text: str) -> IPAddress:
    """Read an address of the command line."""
    try:
        return ip_address(text)
    except ValueError as exc:
        raise WrongUsage(f"{text!r} is no address: write one such as 192.168.39.193") from exc


async def read(datastore: OpenDatastore, run_dir: Path) -> Reading:
    """Read the books, then the records: whoever was given an address has a record before."""
    rested = await Cooldown(DatastoreView(datastore), clock_ns=time.time_ns).rested()
    books = awake(await read_books(datastore), rested=rested)
    if not (run_dir / "control.sock").exists():
        return Reading(books, note=f"no agent runs in {run_dir}: no records were compared")
    try:
        answer = await asyncio.to_thread(ask, run_dir, "endpoints")
    except TryAgain as exc:
        return Reading(books, note=f"no records were compared: {exc}")
    agent = _parse_agent(answer, run_dir)
    if agent.records.damaged:
        unreadable = await asyncio.to_thread(_unreadable, books, agent)
        agent = replace(agent, records=replace(agent.records, unreadable=unreadable))
    if tuple(answer["datastore"]) != datastore.identity:
        note = f"the agent in {run_dir} works on another datastore: no records were compared"
        return Reading(books, note=note)
    agent = replace(agent, records=replace(agent.records, namespaces=_namespaces(books)))
    return Reading(replace(books, records=(agent.records,)), agent)


def _namespaces(books: Books) -> frozenset[str]:
    """Return which of the network namespaces that addresses are held for are there."""
    told = {
        netns_of(one.attribute) for block in books.sound_blocks for one in arithmetic.given(block)
    }
    return frozenset(path for path in told if path is not None and Path(path).exists())


def _parse_agent(answer: dict[str, Any], run_dir: Path) -> LocalAgent:
    where = f"the answer of the agent in {run_dir}"
    try:
        records = NodeRecords(
            node=str(answer["node"]),
            endpoints=tuple([parse_endpoint(where, one) for one in answer["records"]]),
            debts=tuple([parse_pending(where, one) for one in answer["debts"]]),
            aliases=frozenset(answer["aliases"]),
            routed=frozenset(map(ip_address, answer["routed"])),
            gone=frozenset(answer["gone"]),
            damaged=tuple(map(str, answer.get("damaged", ()))),  # agents before did not tell
        )
        return LocalAgent(records, run_dir, Path(answer["stateDir"]))
    except (KeyError, TypeError, ValueError) as exc:
        raise InvalidInput(
            f"cannot read {where} ({exc!r}): pycnictl and pycni-agent must be of one version"
        ) from exc


def _unreadable(books: Books, agent: LocalAgent) -> frozenset[EndpointKey]:
    """Return the attachments that have an address here and a record that can't be read."""
    endpoints = agent.open_endpoints()
    keys = {
        key
        for block in books.sound_blocks
        for one in arithmetic.given(block)
        if node_of(one.attribute) == agent.node and (key := key_of(one.attribute)) is not None
    }
    return frozenset(key for key in keys if _is_damaged(endpoints, key))


def _is_damaged(endpoints: FileEndpoints, key: EndpointKey) -> bool:
    try:
        endpoints.get(key)
    except DatastoreUnusable:
        return True
    return False


async def read_findings(
    datastore: OpenDatastore, run_dir: Path
) -> tuple[Reading, tuple[Finding, ...]]:
    """Read and audit, and once more where something is found: only what stays is told.

    Requests go on while the books are read, so that half of one may be seen.
    """
    reading = await read(datastore, run_dir)
    first = frozenset(audit(reading.books))
    if not first:
        return reading, ()
    await asyncio.sleep(SECOND_LOOK_S)
    reading = await read(datastore, run_dir)
    return reading, tuple([one for one in audit(reading.books) if one in first])
