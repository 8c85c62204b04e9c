"""Add pods through the real plugin and take them away, as a container runtime would.

By `cnitool` where there is one, else by the lab's own runtime; both are told the same by the same
variables.  Each pod runs a small web server.
"""

import asyncio
import contextlib
import json
import shutil
import stat
import sys
from collections.abc import Collection
from ipaddress import ip_interface
from pathlib import Path

from pycni.errors import TryAgain
from pycni.lab import commands
from pycni.lab.layout import NETWORK, Layout, Plan, netns_path, pod_place
from pycni.model.network import IPAddress
from pycni.topology.model import TopologyPod

WEB = Path(__file__).with_name("web.py")


def conflist(node: str, *, layout: Layout, versions: Collection[int]) -> str:
    """Return a node's network configuration; pods get an address of each of these IP versions."""
    assign = {f"assign_ipv{v}": "true" if v in versions else "false" for v in (4, 6)}
    plugin = {
        "type": "pycni",
        "nodename": node,
        "run_dir": str(layout.run_dir(node)),
        "state_dir": str(layout.state_dir(node)),
        "datastore": str(layout.datastore),
        "ipam": {"type": "pycni-ipam"} | (assign if set(versions) != {4} else {}),
    }
    document = {"cniVersion": "1.1.0", "name": NETWORK, "plugins": [plugin]}
    return json.dumps(document, indent=2) + "\n"


def cni_args(pod: TopologyPod) -> str:
    """Return CNI_ARGS for a pod."""
    pairs = {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": pod.namespace,
        "K8S_POD_NAME": pod.name,
        "IP": ",".join(map(str, pod.addresses)),
        "HOST_VETH": pod.host_veth or "",
    }
    return ";".join(f"{key}={value}" for key, value in pairs.items() if value)


def install_plugins(plan: Plan, *, layout: Layout) -> None:
    """Fill CNI_PATH: the relay, and the engine beside it."""
    layout.plugins.mkdir()
    source = Path(plan.clone, "bin")
    relay = Path(plan.relay) if plan.relay else source / "pycni"
    # Copies: the relay looks for the engine beside itself, links resolved.
    shutil.copyfile(relay, layout.plugins / "pycni")
    shutil.copyfile(source / "pycni-relay.py", layout.plugins / "pycni-relay.py")
    (layout.plugins / "pycni-ipam").symlink_to("pycni")
    engine = f'#!/bin/sh\nexec "{sys.executable}" -I -m pycni.cni "$@"\n'
    (layout.plugins / "pycni-engine").write_text(engine, encoding="utf-8")
    for name in ("pycni", "pycni-engine"):
        path = layout.plugins / name
        path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


class Runtime:
    """What stands for a container runtime on every node."""

    def __init__(self, plan: Plan, *, layout: Layout) -> None:
        self._layout = layout
        # User-mode Linux has a /tmp of its own: what was found outside may not be there.
        self._cnitool = plan.cnitool if Path(plan.cnitool).is_file() else ""
        self._webs: dict[str, asyncio.subprocess.Process] = {}

    @property
    def name(self) -> str:
        """Say by what pods are added."""
        return "cnitool" if self._cnitool else "lab-runtime"

    def write_configuration(self, node: str, *, versions: Collection[int]) -> None:
        """Write a node's network configuration."""
        directory = self._layout.net_dir(node)
        directory.mkdir()
        text = conflist(node, layout=self._layout, versions=versions)
        (directory / "10-pycni.conflist").write_text(text, encoding="utf-8")

    async def call(self, verb: str, *, pod: TopologyPod) -> str:
        """Do one verb of CNI for a pod; return what it printed."""
        tool = [self._cnitool or sys.executable]
        if not self._cnitool:
            tool += ["-I", "-m", "pycni.lab.runtime"]
        env = {
            "CNI_PATH": str(self._layout.plugins),
            "NETCONFPATH": str(self._layout.net_dir(pod.node)),
            "CNI_ARGS": cni_args(pod),
        }
        place = str(netns_path(pod_place(pod.full_name)))
        ran = await commands.run(*tool, verb, NETWORK, place, place=pod.node, env=env)
        if ran.status != 0:
            raise TryAgain(f"cannot {verb} pod {pod.full_name} on {pod.node}: {ran.complaint}")
        return ran.output

    async def add(self, pod: TopologyPod) -> tuple[IPAddress, ...]:
        """Plug a pod in; return its addresses."""
        result = json.loads(await self.call("add", pod=pod))
        return tuple(ip_interface(entry["address"]).ip for entry in result["ips"])

    async def start_web(self, place: str, *, name: str) -> None:
        """Start the web server of a pod or host."""
        log = self._layout.web_log(place)
        log.parent.mkdir(exist_ok=True)
        self._webs[place] = await asyncio.create_subprocess_exec(
            *commands.inside(place, [sys.executable, "-I", "-S", str(WEB), name, str(log)]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env=commands.environment(),
            cwd="/",
            start_new_session=True,
        )

    async def stop_web(self, place: str) -> None:
        """End a web server."""
        web = self._webs.pop(place, None)
        if web is not None and web.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                web.kill()
            await web.wait()
