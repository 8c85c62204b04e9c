"""Bringing a lab up, and ending it."""

import argparse
import sys
from dataclasses import replace

from pycni.ctl.files import read_input, source_name
from pycni.errors import AlreadyExists, NotFound, TryAgain
from pycni.lab import client, launch, sockets
from pycni.lab.blueprint import read_topology
from pycni.lab.frames import Request
from pycni.lab.kubeadm import cgroups, host
from pycni.lab.kubeadm.blueprint import require_kubernetes
from pycni.lab.kubeadm.kit import make_kit
from pycni.model.tunnels import TunnelKind, tunnel_of

END_TIMEOUT_S = 30.0


def _say(text: str) -> None:
    print(text, flush=True)


def up(options: argparse.Namespace) -> int:
    """Bring a lab up; take it down again where that fails or is interrupted."""
    name: str = options.name
    if sockets.is_up(name):
        raise AlreadyExists(
            f"the lab {name!r} is up already: look at it with  {sockets.command('show', name)},"
            f" end it with  {sockets.command('down', name)}, or give this one another --name"
        )
    # Before anything is tried, installed or started: a mistake is found at once.
    text, source = read_input(options.topology), source_name(options.topology)
    topology = read_topology(text, source=source)
    if options.kubernetes:
        require_kubernetes(topology, source=source)
        host.require(nodes=len(topology.nodes))
    cgroups.remove(name)  # of one that was killed
    kinds = {tunnel_of(pool) for pool in topology.pools}
    has_ipip = options.kubernetes or TunnelKind.IPIP in kinds
    tunnel, where = launch.decide_tunnel(
        options.tunnel, has_uml=not options.kubernetes, has_ipip=has_ipip, say=_say
    )
    has_routers = bool(topology.routers)
    plan = launch.make_plan(
        text, source=source, tunnel=tunnel, where=where, has_routers=has_routers
    )
    if options.kubernetes:
        plan = replace(plan, kit=str(make_kit(say=_say).directory))
    holder = -1
    try:
        with launch.started(name, where=where, say=_say):
            holder = sockets.open_holder(name)
            request = Request("up", plan.document(), client.own_terminal())
            status = client.perform(sockets.connect(name), request, has_input=False)
    except BaseException:
        # Our leaving takes everything down; say so only when that is done.
        if holder >= 0:
            _wait_for_end(holder, name)
            print("\neverything was taken down", file=sys.stderr)
        raise
    if status != 0:
        _wait_for_end(holder, name)
        print("nothing was left running", file=sys.stderr)
        return status
    ways = (
        "show | test | kubectl WORD… | shell NODE" if plan.kit else "show | test | shell NODE|POD"
    )
    _say(f"\nthe lab is up: bin/lab {ways} | down{_name_hint(name)}")
    return status


def _name_hint(name: str) -> str:
    return "" if name == sockets.DEFAULT_NAME else f"   (each with --name {name})"


def down(name: str) -> int:
    """End a lab, or remove what is left of one that was killed."""
    try:
        holder = sockets.open_holder(name)
    except NotFound:
        if not cgroups.remove(name):
            raise
        _say(f"the lab {name!r} had been killed; nothing is left of it now")
        return 0
    try:
        status = client.perform(sockets.connect(name), Request("down"), has_input=False)
    except TryAgain:
        status = 0  # it ended in another's hands meanwhile
    _wait_for_end(holder, name)
    _say(f"the lab {name!r} is down, nothing is left of it")
    return status


def _wait_for_end(holder: int, name: str) -> None:
    if not sockets.wait_for_end(holder, seconds=END_TIMEOUT_S):
        raise TryAgain(f"the lab {name!r} has not ended within {END_TIMEOUT_S:g} s: try again")
    cgroups.remove(name)
