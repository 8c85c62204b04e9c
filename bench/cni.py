"""Time ADD, CHECK and DEL side by side: pycni's agent behind both relays, and bridge + host-local.

Same network namespaces, same count, in turn within one run, so that a drift of the machine meets
all of them.  What is measured is what a runtime waits for: start of the plugin's process to its
end.  CPU per call counts the plugin's processes and, for pycni, those of the agent and of its CNI
server; with a Kubernetes API a second table says what each process spent, the API's included.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import sandbox

VERBS = ("ADD", "CHECK", "DEL")
OURS = ("agent", "CNI server")
BIN = Path("/run/bench/bin")
CALLS = Path("/run/bench/calls")
RESULTS = Path("/run/bench/results")


@dataclass
class Subject:
    """One plugin under test and what was measured of it.

    `processes` are those that serve its calls, `namespace` is that of the pods that they name, or
    empty.
    """

    name: str
    executable: str
    config: dict[str, Any]
    processes: dict[str, int] = field(default_factory=dict)
    namespace: tuple[str, ...] = ()
    times: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    cpu: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    rates: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    shares: dict[tuple[str, int], list[dict[str, float]]] = field(default_factory=dict)

    def forget(self, callers: int) -> None:
        """Drop what was measured with this many callers."""
        for values in (self.times, self.cpu, self.rates, self.shares):
            for key in [k for k in values if k[1] == callers]:
                del values[key]


def measure(subject: Subject, verb: str, *, count: int, callers: int) -> None:
    """Run one verb for every pod, by this many callers at once."""
    for number in range(count):
        config = dict(subject.config)
        if verb != "ADD":
            config["prevResult"] = json.loads((RESULTS / f"{number}.add").read_text())
        (CALLS / f"{number}.in").write_text(json.dumps(config))
    cpu, before = os.times(), cpu_of(subject)
    lines = sandbox.run(
        str(BIN / "driver"), str(callers), str(count), verb, subject.executable, str(CALLS),
        *subject.namespace,
    ).splitlines()  # fmt: skip
    after = os.times()
    spent = after.children_user + after.children_system - cpu.children_user - cpu.children_system
    key = (verb, callers)
    each = {name: seconds - before[name] for name, seconds in cpu_of(subject).items()}
    shares = {"plugin": spent, **each}
    subject.shares.setdefault(key, []).append({n: s / count * 1e3 for n, s in shares.items()})
    spent += sum(seconds for name, seconds in each.items() if name in OURS)
    for line in lines:
        which, status, elapsed = line.split()
        if which == "total":
            subject.rates.setdefault(key, []).append(count / float(elapsed) * 1e3)
            continue
        output = CALLS / f"{which}.out"
        if status != "0":
            raise RuntimeError(f"{subject.name} {verb} {which}: {output.read_text()}")
        subject.times.setdefault(key, []).append(float(elapsed))
        if verb == "ADD":
            output.rename(RESULTS / f"{which}.add")
    subject.cpu.setdefault(key, []).append(spent / count * 1e3)


def cpu_of(subject: Subject) -> dict[str, float]:
    """Return the CPU time that each process behind a plugin has used so far."""
    return {name: sandbox.cpu_seconds(pid) for name, pid in subject.processes.items()}


def lay_out() -> None:
    """Put the driver and the plugins where the calls find them."""
    tools = sorted((sandbox.CACHE / "go-tools").rglob("bridge"))
    relays = sorted((sandbox.CACHE / "relay").rglob("pycni"), key=lambda p: p.stat().st_mtime)
    if not tools or not relays:
        sys.exit("missing: bin/ensure cni-tools && bin/ensure relay")
    for directory in (BIN, CALLS, RESULTS):
        directory.mkdir(parents=True)
    driver = sandbox.ROOT / "bench" / "driver.c"
    sandbox.run("cc", "-O2", "-Wall", "-Wextra", "-o", str(BIN / "driver"), str(driver))
    shutil.copy(relays[-1], BIN / "pycni")
    (BIN / "py").mkdir()
    for name in ("pycni", "pycni-relay.py"):
        shutil.copy(sandbox.ROOT / "bin" / name, BIN / "py" / name)
    for name in ("bridge", "host-local"):
        shutil.copy(tools[-1].with_name(name), BIN / name)


def make_node(
    *, pods: int, is_kubernetes: bool
) -> tuple[sandbox.Node, dict[str, str], dict[str, int]]:
    """Return a node, what the network's configuration says of its datastore, and who serves it."""
    address = "10.10.7.20/20"
    if not is_kubernetes:
        file = Path("/run/bench/pycni.db")
        sandbox.apply_pool(["--datastore", str(file)])
        node = sandbox.Node("node-0", address=address, datastore=file)
        return node, {"datastore": str(file)}, {}
    from bench.cluster import Cluster  # the client's import is not for those who don't need it

    cluster = Cluster("node-0")
    kubeconfig = str(cluster.server.kubeconfig)
    node = sandbox.Node("node-0", address=address, datastore="kubernetes", kubeconfig=kubeconfig)
    cluster.start(pods=pods)
    return node, {"datastore_type": "kubernetes"}, cluster.server.pids


def prepare(*, pods: int = 110, is_kubernetes: bool = False) -> list[Subject]:
    """Start the node and lay out the plugins."""
    lay_out()
    node, datastore, servers = make_node(pods=pods, is_kubernetes=is_kubernetes)
    make_underlay(node)
    node.start_agent()
    if node.agent is None:
        raise RuntimeError("the agent did not start")
    ours = {
        "cniVersion": "1.1.0", "name": "bench", "type": "pycni", "nodename": node.name,
        "run_dir": str(node.run_dir), "state_dir": str(node.state_dir), **datastore,
    }  # fmt: skip
    bridge = {
        "cniVersion": "1.0.0", "name": "ref", "type": "bridge", "bridge": "ref0",
        "isGateway": True,
        "ipam": {"type": "host-local", "dataDir": "/run/bench/host-local",
                 "ranges": [[{"subnet": "10.99.0.0/16"}]],
                 "routes": [{"dst": "0.0.0.0/0"}]},
    }  # fmt: skip
    status = node.wait(lambda s: bool(s["converged"]))
    pids = dict(zip(OURS, (node.agent.pid, status["cni_pid"]), strict=True))
    more: dict[str, Any] = {"processes": {**pids, **servers}}
    names: tuple[str, ...] = ("bench",) if is_kubernetes else ()
    return [
        Subject("bridge + host-local", str(BIN / "bridge"), bridge, namespace=names),
        Subject("pycni, C relay", str(BIN / "pycni"), ours, namespace=names, **more),
        Subject("pycni, Python relay", str(BIN / "py" / "pycni"), ours, namespace=names, **more),
    ]


def make_underlay(node: sandbox.Node) -> None:
    """Give the node an interface, and a tunl0 of any kind: no packet is sent here."""
    for line in (
        "link add eth0 type veth peer name far",
        "link set far up",
        f"addr add {node.address} dev eth0",
        "link set eth0 up",
        "route add default via 10.10.0.1 dev eth0",
    ):
        sandbox.in_netns(node.name, "ip", *line.split())
    links = sandbox.in_netns(node.name, "ip", "-o", "link")
    if "tunl0" not in links:
        sandbox.in_netns(
            node.name, "ip", "link", "add", "tunl0", "type", "veth", "peer", "name", "tunl0x"
        )
        sandbox.in_netns(node.name, "ip", "link", "set", "tunl0x", "up")


def percentile(ordered: list[float], percent: int) -> float:
    """Return the value that so many per cent of an ascending list don't exceed."""
    return ordered[max(-(-len(ordered) * percent // 100), 1) - 1]


def summary(subjects: list[Subject], *, callers: list[int]) -> list[dict[str, Any]]:
    """Return one row for each subject, verb and number of callers, with ratios to the reference."""
    rows = []
    for count in callers:
        for verb in VERBS:
            reference = subjects[0]
            for subject in subjects:
                times = sorted(subject.times[verb, count])
                theirs = sorted(reference.times[verb, count])
                median = statistics.median(times)
                rate = statistics.median(subject.rates[verb, count])
                rows.append(
                    {
                        "callers": count, "verb": verb, "plugin": subject.name,
                        "n": len(times),
                        "median_ms": round(median, 2),
                        "p95_ms": round(percentile(times, 95), 2),
                        "p99_ms": round(percentile(times, 99), 2),
                        "cpu_ms": round(statistics.median(subject.cpu[verb, count]), 2),
                        "per_s": round(rate, 1),
                        "median_ratio": round(median / statistics.median(theirs), 3),
                        "p99_ratio": round(
                            percentile(times, 99) / percentile(theirs, 99), 2),
                        "rate_ratio": round(
                            rate / statistics.median(reference.rates[verb, count]), 2),
                    }
                )  # fmt: skip
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    head = "| callers | verb | plugin | median ms | p95 ms | p99 ms | CPU ms | calls/s"
    lines = [
        f"{head} | × median | × p99 | × rate |",
        "|--:|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {r['callers']} | {r['verb']} | {r['plugin']} | {r['median_ms']} | {r['p95_ms']}"
        f" | {r['p99_ms']} | {r['cpu_ms']} | {r['per_s']} | {r['median_ratio']}"
        f" | {r['p99_ratio']} | {r['rate_ratio']} |"
        for r in rows
    ]
    return "\n".join(lines)


def shares_table(subjects: list[Subject], *, callers: list[int]) -> str:
    """Return, as a Markdown table, the CPU milliseconds that each process spends for a call."""
    lines: list[str] = []
    for subject in subjects:
        if not subject.processes:
            continue
        names = ("plugin", *subject.processes)
        if not lines:
            lines += [f"| callers | verb | plugin | {' | '.join(names)} |"]
            lines += [f"|--:|---|---|{'--:|' * len(names)}"]
        for count, verb in itertools.product(callers, VERBS):
            found = subject.shares[verb, count]
            each = [f"{statistics.median(one[name] for one in found):.2f}" for name in names]
            lines.append(f"| {count} | {verb} | {subject.name} | {' | '.join(each)} |")
    return "\n".join(lines)


def begin(subjects: list[Subject]) -> None:
    """Have each plugin make what it makes once, by calls alone that are forgotten.

    The reference's bridge changes its address while several calls at once make it, and a CHECK of
    the first ones then fails.
    """
    for subject in subjects:
        for verb in VERBS:
            measure(subject, verb, count=1, callers=1)
        subject.forget(1)


def play(subjects: list[Subject], *, callers: int, rounds: int, count: int) -> None:
    """Measure all verbs of all plugins in turn, so many times; the first round only warms up."""
    for turn in range(rounds + 1):
        for subject in subjects:
            for verb in VERBS:
                measure(subject, verb, count=count, callers=callers)
            print(".", end="", file=sys.stderr, flush=True)
            if turn == 0:
                subject.forget(callers)


def main() -> int:
    """Run the benchmark; print the table and, if asked, write JSON."""
    parser = argparse.ArgumentParser(
        prog="bench/cni", description=__doc__, epilog="example: sudo bench/cni --rounds 4"
    )
    parser.add_argument(
        "--count", type=int, default=110, help="pods in each round (110, the kubelet's usual limit)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each verb (3)")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 16], help="1 16")
    parser.add_argument(
        "--kubernetes", action="store_true",
        help="keep addresses in a Kubernetes API (real etcd and kube-apiserver, on loopback)",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, help="also write the rows there")
    args = parser.parse_args()
    output = args.json.open("w") if args.json else None  # before /run is covered
    sandbox.enter(keep=[sandbox.ROOT, sandbox.CACHE])
    subjects = prepare(pods=args.count, is_kubernetes=args.kubernetes)
    for number in range(args.count):
        sandbox.run("ip", "netns", "add", f"pod{number}")
    # The plugins act on the namespace they are started in: the node's.
    fd = os.open("/run/netns/node-0", os.O_RDONLY)
    from pycni.kernel.netns import setns

    setns(fd)
    begin(subjects)
    for callers in args.callers:
        play(subjects, callers=callers, rounds=args.rounds, count=args.count)
    print(file=sys.stderr)
    rows = summary(subjects, callers=args.callers)
    print(table(rows))
    if args.kubernetes:
        print("\nCPU ms for a call, process by process\n")
        print(shares_table(subjects, callers=args.callers))
    if output is not None:
        json.dump(rows, output, indent=1)
        output.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
