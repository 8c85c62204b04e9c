"""Read of this machine what the checks judge: firewall, settings, files."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pycni.check import forwarding, host
from pycni.check.findings import Report
from pycni.cni.netconf import RUNTIMES_SUFFIXES
from pycni.errors import TryAgain
from pycni.model.network import IPNetwork, KernelState
from pycni.model.tunnels import VXLAN_DEVICES, TunnelKind
from pycni.programs import output_of

_LEGACY = (("iptables-legacy", "ip"), ("ip6tables-legacy", "ip6"))
_LEGACY_TABLES = {"ip": "/proc/net/ip_tables_names", "ip6": "/proc/net/ip6_tables_names"}


def rp_filters(tunnel: str) -> list[str]:
    """Return the names of the reverse path filters that hold for the tunnel."""
    names = ("all", *_devices(tunnel))
    return [f"net.ipv4.conf.{name.replace('.', '/')}.rp_filter" for name in names if name]


def _devices(tunnel: str) -> tuple[str, str]:
    """Return the devices by which packets of IPv4 come tunnelled."""
    return (tunnel, VXLAN_DEVICES[TunnelKind.VXLAN])


async def check_forwarding(pools: Sequence[IPNetwork]) -> Report:
    """Look for chains that drop what is forwarded."""
    unchecked = []
    tables = []
    for read in (_nft_tables, _legacy_tables):
        try:
            tables += await read()
        except TryAgain as exc:
            unchecked.append(f"forward-policy: {exc}")
    return Report(tuple(forwarding.judge(tables, pools)), tuple(unchecked))


async def _nft_tables() -> list[forwarding.Table]:
    if shutil.which("nft") is None:
        raise TryAgain("there is no `nft` program on PATH: install nftables")
    found = []
    dropping = set()
    for family, table, chain in forwarding.forward_chains(await _listing("chains")):
        # One chain first: a table of kube-proxy's may be large, and drops nothing at its end.
        listing = await _listing("chain", family, table, chain)
        if forwarding.parse_nft(listing, family=family, name=table).dropping:
            dropping.add((family, table))
    for family, table in sorted(dropping):
        listing = await _listing("table", family, table)
        found.append(forwarding.parse_nft(listing, family=family, name=table))
    return found


async def _listing(*what: str) -> dict[str, Any]:
    text = await output_of("nft", "-j", "list", *what)
    try:
        listing: dict[str, Any] = json.loads(text)
    except ValueError as exc:
        raise TryAgain(f"nft -j list {' '.join(what)} prints no JSON: {exc}") from exc
    return listing


async def _legacy_tables() -> list[forwarding.Table]:
    """Return the older tables, which nftables doesn't show; to ask without any would make some."""
    found = []
    for program, family in _LEGACY:
        if not _has_legacy(family):
            continue
        if shutil.which(program) is None:
            raise TryAgain(f"there are tables of the older iptables, and no {program} on PATH")
        text = await output_of(program, "-S")
        found.append(forwarding.parse_iptables(text, program=program, family=family))
    return found


def _has_legacy(family: str) -> bool:
    try:
        names = Path(_LEGACY_TABLES[family]).read_text(encoding="ascii")
    except OSError:
        return False
    return "filter" in names.split()


def check_kernel(kernel: KernelState, *, tunnel: str) -> Report:
    """Judge settings and interfaces."""
    there = [name for name in _devices(tunnel) if name in kernel.links]
    judged = (host.judge_rp_filter(kernel.sysctls, tunnel=name) for name in there)
    found = [finding for findings in judged for finding in findings]
    return Report((*found, *host.judge_interfaces(kernel)))


def check_configurations(directory: Path) -> Report:
    """Look which network a runtime would give pods."""
    files = {}
    try:
        paths = sorted(directory.iterdir()) if directory.is_dir() else []
        for path in paths:
            if path.suffix in RUNTIMES_SUFFIXES:
                files[path.name] = path.read_text(encoding="utf-8", errors="replace")
    except OSError as exc:
        return Report(unchecked=(f"cni-configuration: cannot read {exc.filename}: {exc.strerror}",))
    return Report(tuple(host.judge_configurations(files, directory=str(directory))))
