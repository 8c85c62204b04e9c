"""CHECK, GC and STATUS: compare, clean up, and say whether an ADD could work."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_interface
from math import inf
from pathlib import Path
from typing import Any

from pycni.cni import delegated, gateways
from pycni.cni.debts import pay_debts
from pycni.cni.errors import CniError, Code
from pycni.cni.protocol import Request
from pycni.cni.removal import remove
from pycni.cni.standing import is_dead, plug_request
from pycni.cni.tools import LOCK_TIMEOUT_S, Engine
from pycni.errors import PycniError, ServerAway, TryAgain
from pycni.ipam import lookup
from pycni.ipam.books import key_of, sound
from pycni.leaving import REFUSAL
from pycni.model.endpoints import EndpointKey, EndpointState, WorkloadEndpoint
from pycni.model.resources import Block, IPAMConfig

UNAVAILABLE_AFTER_S = 30.0
"""How long no ADD could work before STATUS says so."""


async def check(engine: Engine, request: Request, *, netns_fd: int) -> None:
    """Compare kernel, record, datastore and result; raise with every difference found."""
    record = engine.endpoints.get(request.key)
    if record is None or record.state is not EndpointState.READY:
        raise CniError(
            Code.UNKNOWN_CONTAINER,
            f"there is no endpoint {request.key} on {engine.node}: delete the pod and add it again",
        )
    result = request.config.prev_result or {}
    findings: list[str] = []
    if record.has_interface:
        expected = _as_changed_since(record, result)
        plug = plug_request(
            engine, request, expected, addresses=record.addresses, netns_fd=netns_fd
        )
        findings += engine.podnet.check(plug)
    findings += _compare_result(result, record)
    if record.delegation is None:
        findings += await _compare_books(engine, record)
    if findings:
        raise CniError(
            Code.CHECK_FAILED,
            f"endpoint {request.key} is not as it was made: {findings[0]}"
            + (f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""),
            details="; ".join(findings),
        )
    await delegated.check(request, record)


async def _compare_books(engine: Engine, record: WorkloadEndpoint) -> list[str]:
    """Compare who holds the addresses, and the gateways beside them, with who should."""
    gateways_handle = gateways.handle_of(record.key.network, node=engine.node)
    expected = [(one.interface.ip, record.handle_id) for one in record.addresses]
    expected += [(one.gateway, gateways_handle) for one in record.addresses if one.gateway]
    findings = []
    for address, handle_id in expected:
        holder = await lookup.holder(engine.datastore, address, expected=handle_id)
        if holder != handle_id:
            held = f"held by {holder}" if holder else "free"
            findings.append(f"address {address} is {held} in the datastore")
    return findings


def _as_changed_since(record: WorkloadEndpoint, result: Mapping[str, Any]) -> WorkloadEndpoint:
    """Return the record with the MAC that a later plugin of the list gave the pod (`tuning`)."""
    for interface in result.get("interfaces", ()):
        if interface.get("sandbox") and interface.get("name") == record.key.ifname:
            return replace(record, pod_mac=str(interface.get("mac") or record.pod_mac).lower())
    return record


def _compare_result(result: Mapping[str, Any], record: WorkloadEndpoint) -> list[str]:
    """Compare the runtime's memory of the ADD with our record."""
    said = {ip_interface(item["address"]) for item in result.get("ips", ())}
    ours = {ip_interface(str(a.interface)) for a in record.addresses}
    return [f"prevResult lacks our address {missing}" for missing in sorted(map(str, ours - said))]


async def collect_garbage(engine: Engine, request: Request) -> None:
    """Remove every endpoint of this network that the runtime doesn't list, and its addresses.

    Without a list nobody knows what is valid: then only what is evidently dead goes, the
    endpoints whose network namespace is gone.
    """
    records, complaints = engine.endpoints.readable()
    failures = list(complaints)
    hanging: set[str] = set()
    for key, plugin in _unwanted(engine, records, request).items():
        if plugin in hanging:  # the caller would not wait for it again and again
            failures.append(f"{key}: {plugin} was not asked, since it has just failed")
            continue
        try:
            async with engine.endpoints.lock(key, timeout_s=LOCK_TIMEOUT_S):
                record = engine.endpoints.get(key)
                if record is not None:
                    await remove(engine, record)
        except (PycniError, OSError) as exc:
            if plugin and isinstance(exc, TryAgain):
                hanging.add(plugin)
            failures.append(f"{key}: {exc}")
    failures += await pay_debts(engine)
    if request.config.valid_attachments is not None:
        failures += await _collect_handles(engine, request, request.config.valid_attachments)
        failures += await _collect_delegated(request)
    failures += await _collect_gateways(engine, request)
    if failures:
        raise TryAgain(f"GC could not remove everything: {'; '.join(failures)}")


def _unwanted(
    engine: Engine, records: Iterable[WorkloadEndpoint], request: Request
) -> dict[EndpointKey, str]:
    """Return what has to go, and the other IPAM plugin that must be asked for it, if any."""
    keep = request.config.valid_attachments
    living = engine.podnet.aliases() if keep is None else frozenset()
    return {
        e.key: e.delegation.plugin if e.delegation is not None else ""
        for e in records
        if e.key.network == request.config.name
        and (is_dead(e, living) if keep is None else (e.key.container_id, e.key.ifname) not in keep)
    }


async def _collect_handles(
    engine: Engine, request: Request, keep: frozenset[tuple[str, str]]
) -> list[str]:
    """Release what attachments of this network and node hold that are neither listed nor recorded.

    Whose an address is stands beside it, in so many words: the text of a handle does not tell,
    because names of networks and containers may hold dots.
    """
    failures = []
    for attribute in await lookup.attributes_on(engine.datastore, node=engine.node):
        key = key_of(attribute)
        if key is None or key.network != request.config.name or attribute.handle_id is None:
            continue
        if (key.container_id, key.ifname) in keep:
            continue
        try:
            async with engine.endpoints.lock(key, timeout_s=LOCK_TIMEOUT_S):
                if engine.endpoints.get(key) is None:
                    await engine.allocator.release_by_handle(
                        attribute.handle_id, key=key, was_used=True
                    )
        except PycniError as exc:
            failures.append(f"{attribute.handle_id}: {exc}")
    return failures


async def _collect_delegated(request: Request) -> list[str]:
    """Let another IPAM plugin collect what of this network is not listed."""
    if request.delegation is not None:
        try:
            await delegated.ask("GC", request, request.delegation)
        except PycniError as exc:
            return [str(exc)]
    return []


async def _collect_gateways(engine: Engine, request: Request) -> list[str]:
    """Release the gateways of this network that nobody uses any more."""
    failures = []
    blocks = sound(stored.value for stored in (await engine.datastore.list(Block)).items)
    for gateway in gateways.gateways_in(blocks, node=engine.node):
        if gateway.network == request.config.name:
            try:
                await gateways.release(engine, gateway)
            except PycniError as exc:
                failures.append(f"{gateway}: {exc}")
    return failures


async def status(engine: Engine, request: Request) -> None:
    """Answer whether ADD can work: 50 on a node that leaves, or once it could not for 30 s on end.

    A runtime takes the first error for "the node's network is not ready" and the node's healthy
    pods are evicted in the end.  When trouble began is kept in a file, because the in-process
    engine lives for one request only.

    That the API server is away is no trouble of this node's: nobody places a pod on it then, and a
    kubelet that takes the network for not ready starts no container of the pods that it has again.
    """
    if engine.is_leaving():
        raise CniError(Code.UNAVAILABLE, REFUSAL)
    since = engine.run_dir / "trouble-since"
    try:
        await engine.datastore.get(IPAMConfig, "default")
        if request.delegation is not None:
            await delegated.ask("STATUS", request, request.delegation)
    except ServerAway:
        pass
    except PycniError as exc:
        now = engine.clock()
        began = _began(since, now)
        if now - began >= UNAVAILABLE_AFTER_S:
            raise CniError(Code.UNAVAILABLE, f"no ADD can work: {exc}") from exc
        return
    since.unlink(missing_ok=True)


def _began(since: Path, now: float) -> float:
    try:
        began = float(since.read_text(encoding="ascii"))
    except (OSError, ValueError):
        began = inf
    if began <= now:
        return began
    # No trouble known, a damaged file, or a clock that was set back: it begins now.  So it does
    # where that can't be noted, as the relays have it: an error is at once what 50 is after 30 s.
    with suppress(OSError):
        since.write_text(f"{now}", encoding="ascii")
    return now
