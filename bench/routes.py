"""Time learned routes into the kernel, beside BIRD 2 and beside what ExaBGP alone takes.

burst     a peer announces 1,000 and 10,000 blocks at once, all its own, or as a route reflector
          those of nodes with four or two each: from its first UPDATE to the kernel's last event
          (ExaBGP: to its last line for a helper, which is the floor for us)
change    with 10,000 routes there, one block comes and goes: from its UPDATE to the kernel's event
many      100,000 blocks by one peer: the same, and how many sessions are up at the end
mesh      300 peers that say nothing: CPU and memory
simulate  5,000 nodes of two blocks each behind two route reflectors
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import sandbox
from bench.receivers import (
    RECEIVERS,
    Monitor,
    Peers,
    Scene,
    agent,
    is_complete,
    make_link,
    receiving,
)

Row = dict[str, Any]
MOST_PEERS = 300
SETTLE_S = 3.0
BLOCKS_OF_A_NODE = 2
"""What 110 pods need, as many as a kubelet takes unless it is told otherwise."""
BLOCKS_OF_NODES = (None, 4, BLOCKS_OF_A_NODE)


def burst(receiver: str, scene: Scene) -> float:
    """Return the seconds from the first UPDATE to the last route."""
    peers, monitor = Peers(scene), Monitor()
    try:
        with receiving(receiver, scene, monitor) as last_moment:
            peers.wait_for_sessions(scene.peers)
            time.sleep(SETTLE_S)
            monitor.drain()
            began = peers.tell("announce", 0, scene.blocks)
            return last_moment() - began
    finally:
        monitor.close()
        peers.end()


def bursts(args: argparse.Namespace) -> list[Row]:
    """Compare the receivers, in turn within each round."""
    rows: list[Row] = []
    for count, share in itertools.product(
        args.counts, (None, 2 * BLOCKS_OF_A_NODE, BLOCKS_OF_A_NODE)
    ):
        scene = Scene(peers=1, blocks=count, nodes=count // share if share else 0)
        times: dict[str, list[float]] = {receiver: [] for receiver in RECEIVERS}
        for _ in range(args.rounds):
            for receiver, found in times.items():
                found.append(burst(receiver, scene))
                _dot()
        medians = {receiver: statistics.median(found) for receiver, found in times.items()}
        rows += [
            {
                "receiver": receiver,
                "blocks": count,
                "next hops": scene.nodes or 1,
                "median s": round(medians[receiver], 3),
                "min s": round(min(found), 3),
                "max s": round(max(found), 3),
                "× BIRD": round(medians[receiver] / medians["BIRD"], 2),
                "× ExaBGP alone": round(medians[receiver] / medians["ExaBGP alone"], 2),
            }
            for receiver, found in times.items()
        ]
    return rows


def changes(args: argparse.Namespace) -> list[Row]:
    """Let one block come and go, again and again, while all others stay."""
    rows: list[Row] = []
    for count in (2, 100):
        scene = Scene(peers=count, blocks=10_001)
        peers, monitor = Peers(scene), Monitor()
        last = scene.blocks - 1
        came, went = [], []
        try:
            with agent(scene) as node:
                peers.wait_for_sessions(count)
                peers.tell("announce", 0, last)
                node.wait(lambda s: is_complete(s, peers=count, paths=last), 180)  # noqa: B023
                time.sleep(SETTLE_S)
                monitor.drain()
                for _ in range(args.changes):
                    began = peers.tell("announce", last, last + 1)
                    came.append(1000 * (monitor.count_until(1) - began))
                    time.sleep(0.1)
                    began = peers.tell("withdraw", last, last + 1)
                    went.append(1000 * (monitor.count_until(1, is_gone=True) - began))
                    time.sleep(0.1)
        finally:
            monitor.close()
            peers.end()
        for what, found in (("announced", came), ("withdrawn", went)):
            rows.append({"peers": count, "a block is": what, **_spread(found, "ms")})
        _dot()
    return rows


def _spread(found: list[float], unit: str) -> Row:
    found = sorted(found)
    return {
        f"median {unit}": round(statistics.median(found), 1),
        f"p95 {unit}": round(found[int(len(found) * 0.95)], 1),
        f"max {unit}": round(found[-1], 1),
    }


def many(args: argparse.Namespace) -> list[Row]:
    """Let one peer announce a hundred thousand blocks."""
    return [_converge(Scene(peers=1, blocks=args.many), "one peer")]


def simulate(args: argparse.Namespace) -> list[Row]:
    """Let two reflectors tell of so many nodes."""
    blocks = args.nodes * BLOCKS_OF_A_NODE
    return [_converge(Scene(peers=2, blocks=blocks, nodes=args.nodes), "two reflectors")]


def _converge(scene: Scene, told_by: str) -> Row:
    """Start an agent, tell it everything, and look at what that took."""
    peers, monitor = Peers(scene), Monitor()
    try:
        with agent(scene) as node:
            start = time.perf_counter()
            peers.wait_for_sessions(scene.peers)
            status = node.wait(lambda s: is_complete(s, peers=scene.peers, paths=0), 180)
            ready_s = time.perf_counter() - start
            usage = Usage(node, status)
            monitor.drain()
            began = peers.tell("announce", 0, scene.blocks)
            took = monitor.count_until(scene.blocks) - began
            paths = scene.blocks * (scene.peers if scene.nodes else 1)
            node.wait(lambda s: is_complete(s, peers=scene.peers, paths=paths), 180)
            used = usage.cpu_s()
            status = node.wait(lambda s: bool(s["converged"]), 60)
            return {
                "told by": told_by,
                "blocks": scene.blocks,
                "start s": round(ready_s, 2),
                "converged s": round(took, 2),
                "sessions up": _sessions_up(status),
                **{f"{name} CPU s": round(seconds, 2) for name, seconds in used.items()},
                **usage.memory(),
            }
    finally:
        monitor.close()
        peers.end()
        _dot()


class Usage:
    """What an agent and its ExaBGP use of the machine, from now on."""

    def __init__(self, node: sandbox.Node, status: dict[str, Any]) -> None:
        if node.agent is None:
            raise RuntimeError("the agent did not start")
        self._pids = {"agent": node.agent.pid, "ExaBGP": int(status["bgp_pid"])}
        self._before = {name: sandbox.cpu_seconds(pid) for name, pid in self._pids.items()}

    def cpu_s(self) -> dict[str, float]:
        """Return the seconds of CPU that each has used since."""
        return {n: sandbox.cpu_seconds(pid) - self._before[n] for n, pid in self._pids.items()}

    def memory(self) -> Row:
        """Return the columns of each one's memory."""
        return {
            f"{name} RSS MiB": round(sandbox.resident_mib(pid), 1)
            for name, pid in self._pids.items()
        }


def _sessions_up(status: dict[str, Any]) -> int:
    return sum(peer["state"] == "up" for peer in status["peers"])


def mesh(args: argparse.Namespace) -> list[Row]:
    """Watch an agent with many peers while nothing happens."""
    scene = Scene(peers=MOST_PEERS, blocks=MOST_PEERS)
    peers = Peers(scene)
    try:
        with agent(scene) as node:
            start = time.perf_counter()
            peers.wait_for_sessions(scene.peers)
            peers.tell("announce", 0, scene.blocks)
            wanted = scene.peers
            status = node.wait(lambda s: is_complete(s, peers=wanted, paths=wanted), 180)
            ready_s = time.perf_counter() - start
            time.sleep(SETTLE_S)
            usage = Usage(node, status)
            time.sleep(args.seconds)
            shares = {n: 100 * used / args.seconds for n, used in usage.cpu_s().items()}
            status = node.wait(lambda s: bool(s["converged"]))
            return [
                {
                    "peers": scene.peers,
                    "up after s": round(ready_s, 2),
                    "sessions up": _sessions_up(status),
                    **{f"{name} CPU %": round(share, 2) for name, share in shares.items()},
                    "together %": round(sum(shares.values()), 2),
                    **usage.memory(),
                }
            ]
    finally:
        peers.end()


PARTS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "burst": bursts,
    "change": changes,
    "many": many,
    "mesh": mesh,
    "simulate": simulate,
}


def _dot() -> None:
    print(".", end="", file=sys.stderr, flush=True)


def main() -> int:
    """Run the parts that were asked for; print their tables and, if asked, write JSON."""
    parser = argparse.ArgumentParser(
        prog="bench/routes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: sudo bench/routes burst change --rounds 3",
    )
    # With choices argparse would not let words be left out.
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{' '.join(PARTS)} (all)")
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10000], help="1000 10000")
    parser.add_argument("--rounds", type=int, default=3, help="bursts to each receiver (3)")
    parser.add_argument("--changes", type=int, default=50, help="changes of one block (50)")
    parser.add_argument("--many", type=int, default=100_000, help="blocks of `many` (100000)")
    parser.add_argument("--nodes", type=int, default=5000, help="nodes of `simulate` (5000)")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long `mesh` looks (30)")
    parser.add_argument("--json", type=Path, help="also write the rows there")
    args = parser.parse_args()
    if unknown := set(args.parts) - PARTS.keys():
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    output = args.json.open("w") if args.json else None
    sandbox.enter(keep=[sandbox.ROOT])
    Path("/run/bench").mkdir()
    make_link(MOST_PEERS)
    results: dict[str, list[Row]] = {}
    for name in args.parts or PARTS:
        results[name] = PARTS[name](args)
        print(file=sys.stderr)
        print(f"{name}\n")
        sandbox.print_table(results[name])
        print(flush=True)
    if output is not None:
        json.dump(results, output, indent=1)
        output.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
