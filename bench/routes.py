"""Time a peer's announcement of many blocks until the last one is in the kernel.

A BIRD announces 1,000 and 10,000 blocks in one go; the receiver is pycni's agent with its ExaBGP,
and, in the same run, another BIRD.  The clock starts when the announcer's session is enabled
and stops at the kernel's last event of a new route.
"""

import argparse
import asyncio
import json
import socket
import statistics
import subprocess
import sys
import time
from ipaddress import IPv4Network
from pathlib import Path

from bench import sandbox

POOL = IPv4Network("10.128.0.0/9")
SENDER, RECEIVER = "10.10.0.2", "10.10.0.1"
WAIT_S = 60.0


def blocks(count: int) -> list[IPv4Network]:
    """Return the first blocks of the pool."""
    first = int(POOL.network_address)
    return [IPv4Network((first + i * 64, 26)) for i in range(count)]


def bird_config(name: str, *, own: str, other: str, routes: list[IPv4Network]) -> str:
    """Return a BIRD's configuration; only the receiver writes to the kernel."""
    static = "\n".join(f"  route {r} blackhole;" for r in routes)
    kernel = "" if routes else "protocol kernel { ipv4 { import none; export all; }; }"
    return f"""
router id {own};
protocol device {{}}
protocol direct {{ ipv4; interface "*"; }}
{kernel}
protocol static own {{ ipv4;
{static}
}}
protocol bgp {name} {{
  disabled {"yes" if routes else "no"};
  local {own} as 64512;
  neighbor {other} as 64512;
  graceful restart yes;
  connect delay time 1;
  ipv4 {{ import all; export where proto = "own"; next hop self; }};
}}
"""


def start_bird(netns: str, config: str) -> Path:
    """Start a BIRD in a namespace; return its control socket."""
    directory = Path("/run/bench") / netns
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "bird.conf").write_text(config)
    control = directory / "bird.ctl"
    sandbox.in_netns(
        netns, "bird", "-c", str(directory / "bird.conf"), "-s", str(control),
        "-P", str(directory / "bird.pid"),
    )  # fmt: skip
    return control


def stop_bird(control: Path) -> None:
    """End a BIRD."""
    sandbox.run("birdc", "-s", str(control), "down")
    deadline = time.monotonic() + 10
    while control.exists() and time.monotonic() < deadline:
        time.sleep(0.05)


def make_link() -> None:
    """Make sender and receiver, on one link."""
    for name in ("sender", "receiver"):
        if not Path(f"/run/netns/{name}").exists():
            sandbox.run("ip", "netns", "add", name)
        sandbox.in_netns(name, "ip", "link", "set", "lo", "up")
    sandbox.in_netns(
        "sender",
        "ip",
        "link",
        "add",
        "eth0",
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
        "netns",
        "receiver",
    )
    for name, address in (("sender", SENDER), ("receiver", RECEIVER)):
        sandbox.in_netns(name, "ip", "addr", "add", f"{address}/24", "dev", "eth0")
        sandbox.in_netns(name, "ip", "link", "set", "eth0", "up")


def count_until(monitor: socket.socket, wanted: int) -> float:
    """Return the moment at which the kernel had reported so many new routes."""
    from pycni.kernel.wire import messages

    seen = 0
    deadline = time.monotonic() + WAIT_S
    monitor.settimeout(1.0)
    while time.monotonic() < deadline:
        try:
            datagram = monitor.recv(1 << 20)
        except TimeoutError:
            continue
        # RTM_NEWROUTE of a /26 (the family and prefix length open the message)
        seen += sum(m.type == 24 and m.body[:2] == b"\x02\x1a" for m in messages(datagram))
        if seen >= wanted:
            return time.perf_counter()
    raise RuntimeError(f"only {seen} of {wanted} routes came within {WAIT_S} s")


def open_monitor(netns: str) -> socket.socket:
    """Subscribe to a namespace's IPv4 routes."""
    from pycni.kernel.netlink import join_group, open_socket
    from pycni.kernel.netns import inside, open_own

    with (
        Path(f"/run/netns/{netns}").open("rb") as there,
        inside(there.fileno(), home=open_own()),
    ):
        monitor = open_socket(buffer=64 << 20)
    join_group(monitor, 7)  # RTNLGRP_IPV4_ROUTE
    return monitor


def one_run(receiver: str, count: int) -> float:
    """Return the seconds from enabling the session to the last route in the kernel."""
    monitor = open_monitor("receiver")
    wanted = blocks(count)
    announcer = start_bird(
        "sender", bird_config("bgp_out", own=SENDER, other=RECEIVER, routes=wanted)
    )
    bird = None
    node = None
    try:
        if receiver == "BIRD":
            config = bird_config("bgp_in", own=RECEIVER, other=SENDER, routes=[])
            bird = start_bird("receiver", config)
            time.sleep(1.0)
        else:
            node = start_agent(wanted)
        began = time.perf_counter()
        sandbox.run("birdc", "-s", str(announcer), "enable", "bgp_out")
        return count_until(monitor, count) - began
    finally:
        monitor.close()
        stop_bird(announcer)
        if bird is not None:
            stop_bird(bird)
        if node is not None and node.agent is not None:
            node.agent.terminate()
            node.agent.wait(10)
        subprocess.run(
            ["nsenter", "--net=/run/netns/receiver", "ip", "route", "flush", "proto", "bird"],
            check=False,
        )


def start_agent(wanted: list[IPv4Network]) -> sandbox.Node:
    """Start an agent that knows the sender as a node that owns these blocks."""
    datastore = Path(f"/run/bench/db-{time.monotonic_ns()}/pycni.db")
    sandbox.apply_pool(["--datastore", str(datastore)], cidr=str(POOL), ipip="Never")
    asyncio.run(own_blocks(datastore, wanted))
    node = sandbox.Node.__new__(sandbox.Node)
    node.name, node.address, node.datastore = "receiver", f"{RECEIVER}/24", datastore
    node.directory = Path(f"/run/bench/agent-{time.monotonic_ns()}")
    node.run_dir, node.state_dir = node.directory / "run", node.directory / "state"
    node.agent = None
    node.start_agent()
    return node


async def own_blocks(datastore: Path, wanted: list[IPv4Network]) -> None:
    """Write the sender's node and its affinities."""
    from ipaddress import ip_interface

    from pycni.datastore.sqlite import open_sqlite
    from pycni.model.resources import AffinityState, BlockAffinity, Node

    store = await open_sqlite(datastore)
    await store.create(Node("sender", ipv4=ip_interface(f"{SENDER}/24")))
    for cidr in wanted:
        await store.create(BlockAffinity("sender", cidr, AffinityState.CONFIRMED))
    await store.close()


def main() -> int:
    """Run the benchmark; print the table and, if asked, write JSON."""
    parser = argparse.ArgumentParser(
        prog="bench/routes", description=__doc__, epilog="example: sudo bench/routes --rounds 3"
    )
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10000], help="1000 10000")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (3)")
    parser.add_argument("--json", type=Path, help="also write the rows there")
    args = parser.parse_args()
    output = args.json.open("w") if args.json else None
    sandbox.enter(keep=[sandbox.ROOT])
    Path("/run/bench").mkdir()
    make_link()
    rows = []
    for count in args.counts:
        times: dict[str, list[float]] = {"BIRD": [], "pycni": []}
        for _ in range(args.rounds):
            for receiver, found in times.items():
                found.append(one_run(receiver, count))
                print(".", end="", file=sys.stderr, flush=True)
        reference = statistics.median(times["BIRD"])
        for receiver, found in times.items():
            median = statistics.median(found)
            rows.append(
                {"blocks": count, "receiver": receiver, "median_s": round(median, 3),
                 "min_s": round(min(found), 3), "max_s": round(max(found), 3),
                 "ratio": round(median / reference, 2)}
            )  # fmt: skip
    print(file=sys.stderr)
    print("| blocks | receiver | median s | min s | max s | × BIRD |")
    print("|--:|---|--:|--:|--:|--:|")
    for r in rows:
        print(f"| {r['blocks']} | {r['receiver']} | {r['median_s']} | {r['min_s']} | {r['max_s']}"
              f" | {r['ratio']} |")  # fmt: skip
    if output is not None:
        json.dump(rows, output, indent=1)
        output.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
