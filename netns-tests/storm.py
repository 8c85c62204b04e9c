"""Run inside a lab: many ADDs and DELs by many callers at once, and what went wrong, as JSON.

    python3 storm.py LAB PAIRS CALLERS EXECUTABLE NODE… [--until FILE]

EXECUTABLE is `pycni` (the relay, so the agents serve) or `pycni-engine` (in process).  While a pod
lives, its route and interface are looked for; an address given twice at a time is an error.  After
PAIRS it goes on until there is FILE.
"""

import itertools
import json
import os
import subprocess
import sys
import threading


class Storm:
    """The callers' shared state."""

    def __init__(self, lab: str, executable: str, nodes: list[str]) -> None:
        self.directory = f"/run/pycni-lab/{lab}"
        self.executable = f"{self.directory}/bin/{executable}"
        self.nodes = nodes
        self.guard = threading.Lock()
        self.live: dict[str, str] = {}
        self.errors: list[str] = []

    def config(self, node: str) -> str:
        """Return the network configuration of a node."""
        directory = f"{self.directory}/{node}/net.d"
        with open(f"{directory}/10-pycni.conflist", encoding="utf-8") as file:  # noqa: PTH123
            listed = json.load(file)
        plugin = {**listed["plugins"][0], "name": listed["name"]}
        return json.dumps({**plugin, "cniVersion": listed["cniVersion"]})

    def call(self, verb: str, node: str, container: str, netns: str) -> dict[str, object]:
        """Call the plugin; note a failure."""
        environment = {
            **os.environ,
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/run/netns/{netns}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": f"{self.directory}/bin",
        }
        ran = subprocess.run(
            ["nsenter", f"--net=/run/netns/{node}", "--", self.executable],
            input=self.config(node),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode != 0:
            self.note(f"{verb} {container} on {node}: {ran.stdout} {ran.stderr}")
            return {}
        return dict(json.loads(ran.stdout)) if ran.stdout else {}

    def note(self, error: str) -> None:
        """Keep an error."""
        with self.guard:
            self.errors.append(error)

    def pair(self, number: int, netns: str) -> None:
        """Add a pod, look at it, delete it."""
        node = self.nodes[number % len(self.nodes)]
        container = f"storm{number}"
        result = self.call("ADD", node, container, netns)
        ips = result.get("ips")
        if not isinstance(ips, list):
            return
        address = ips[0]["address"].split("/")[0]
        with self.guard:
            if address in self.live:
                self.errors.append(f"{address} given to {container} and {self.live[address]}")
            self.live[address] = container
        self.look(node, address)
        with self.guard:
            self.live.pop(address, None)
        self.call("DEL", node, container, netns)

    def look(self, node: str, address: str) -> None:
        """Check that a living pod's route and interface are there."""
        ran = subprocess.run(
            ["ip", "-n", node, "-j", "route", "show", f"{address}/32"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        routes = json.loads(ran.stdout or "[]")
        if not routes or not routes[0]["dev"].startswith("cali"):
            self.note(f"the living {address} on {node} has no route: {ran.stdout}{ran.stderr}")


def main() -> int:
    """Run the storm; print the errors."""
    arguments, until = sys.argv[1:], None
    if "--until" in arguments:
        *arguments, _, until = arguments
    lab, pairs, callers, executable, *nodes = arguments
    storm = Storm(lab, executable, nodes)
    numbers = itertools.takewhile(
        lambda number: number < int(pairs) or not (until is None or os.path.exists(until)),  # noqa: PTH110
        itertools.count(),
    )

    def work(caller: int) -> None:
        netns = f"storm-{caller}"
        subprocess.run(["ip", "netns", "add", netns], check=True)
        while True:
            with storm.guard:
                number = next(numbers, None)
            if number is None:
                break
            storm.pair(number, netns)
        subprocess.run(["ip", "netns", "del", netns], check=True)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(int(callers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    json.dump({"errors": storm.errors[:20], "count": len(storm.errors)}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
