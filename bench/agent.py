"""Measure an agent at rest: CPU and memory of agent and ExaBGP at three nodes, and its start.

Three agents on one link form a mesh; after they converge nothing happens for a while, and what
each process used of the CPU meanwhile is its idle cost.  The start is timed from the start of the
process until the agent calls itself converged with all sessions up.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from bench import sandbox

NODES = 3


def make_nodes(datastore: Path) -> list[sandbox.Node]:
    """Make nodes on one bridge."""
    sandbox.run("ip", "link", "add", "mesh", "type", "bridge")
    sandbox.run("ip", "link", "set", "mesh", "up")
    nodes = []
    for number in range(NODES):
        name, address = f"node-{number}", f"10.10.0.{number + 1}/24"
        node = sandbox.Node(name, address=address, datastore=datastore)
        sandbox.run("ip", *f"link add v{number} type veth peer name eth0 netns {name}".split())
        sandbox.run("ip", *f"link set v{number} master mesh up".split())
        sandbox.in_netns(name, "ip", "addr", "add", address, "dev", "eth0")
        sandbox.in_netns(name, "ip", "link", "set", "eth0", "up")
        # A tunl0 of any kind: no packet is sent, but each node takes a block for its address.
        if "tunl0" not in sandbox.in_netns(name, "ip", "-o", "link"):
            sandbox.in_netns(
                name, "ip", "link", "add", "tunl0", "type", "veth", "peer", "name", "tunl0x"
            )
        nodes.append(node)
    return nodes


def is_meshed(status: dict[str, Any]) -> bool:
    """Tell whether all sessions are up and all blocks learned."""
    peers = status["peers"]
    return (
        bool(status["converged"])
        and len(peers) == NODES - 1
        and all(p["state"] == "up" and p["paths"] for p in peers)
    )


PARTS = ("agent", "CNI_server", "ExaBGP")


def processes(node: sandbox.Node) -> tuple[int, int, int]:
    """Return the processes of a node, in the order of `PARTS`."""
    status = node.wait(is_meshed)
    if node.agent is None:
        raise RuntimeError("the agent did not start")
    return node.agent.pid, status["cni_pid"], status["bgp_pid"]


def main() -> int:
    """Run the benchmark; print the table and, if asked, write JSON."""
    parser = argparse.ArgumentParser(
        prog="bench/agent", description=__doc__, epilog="example: sudo bench/agent --seconds 30"
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to watch (30)")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    args = parser.parse_args()
    output = args.json.open("w") if args.json else None
    sandbox.enter(keep=[sandbox.ROOT])
    Path("/run/bench").mkdir()
    datastore = Path("/run/bench/pycni.db")
    sandbox.apply_pool(["--datastore", str(datastore)], ipip="Always")
    nodes = make_nodes(datastore)
    for node in nodes[1:]:
        node.start_agent(is_waiting=False)
    for node in nodes[1:]:
        node.wait(lambda s: len(s["peers"]) == NODES - 2)
    time.sleep(2)
    began = time.perf_counter()
    nodes[0].start_agent(is_waiting=False)
    nodes[0].wait(is_meshed)
    start_s = time.perf_counter() - began
    for node in nodes:
        node.wait(is_meshed)
    time.sleep(3)
    pids = {n.name: processes(n) for n in nodes}
    before = {name: [sandbox.cpu_seconds(p) for p in all_] for name, all_ in pids.items()}
    time.sleep(args.seconds)
    rows = []
    for name, all_ in pids.items():
        used = [sandbox.cpu_seconds(p) - b for p, b in zip(all_, before[name], strict=True)]
        shares = [u / args.seconds * 100 for u in used]
        row: dict[str, Any] = {"node": name}
        row |= {f"{part}_cpu_percent": round(s, 2) for part, s in zip(PARTS, shares, strict=True)}
        row["cpu_percent"] = round(sum(shares), 2)
        row |= {
            f"{part}_rss_mib": round(sandbox.resident_mib(pid), 1)
            for part, pid in zip(PARTS, all_, strict=True)
        }
        rows.append(row)
    result = {"seconds": args.seconds, "start_to_converged_s": round(start_s, 2), "nodes": rows}
    sandbox.print_table(rows)
    print(f"\nstart to converged: {result['start_to_converged_s']} s")
    if output is not None:
        json.dump(result, output, indent=1)
        output.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
