"""Take away what an agent has left on a host that it will not come back to.

Only what says of itself that it is ours (`pycni.plan.ownership`), by what is known without the
datastore: the pools that ever were, and the settings.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pycni.agent import history
from pycni.agent.claim import claim_run_dir
from pycni.config import AgentConfig
from pycni.endpoints import FileEndpoints
from pycni.leaving import LeaveWish
from pycni.model.endpoints import pod_of
from pycni.model.network import (
    DeleteAddress,
    DeleteLink,
    DeleteRoute,
    DeleteRuleset,
    Op,
)
from pycni.plan.iproute import protocol_number, route_text
from pycni.plan.leftovers import plan_removal, sysctls_of_tunnel
from pycni.plan.ownership import Ownership
from pycni.ports import Kernel


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What was removed, what the kernel refused, and which pods are still here."""

    removed: Sequence[str]
    refused: Sequence[str]
    pods: Sequence[str]


async def clean(config: AgentConfig, kernel: Kernel) -> Cleaned:
    """Remove what is ours; raise `TryAgain` while an agent runs, which would make it anew."""
    run_dir, state_dir = Path(config.run_dir), Path(config.state_dir)
    lock = _claim(run_dir)
    try:
        removed = _remove_network(config)
        have = await kernel.snapshot(sysctls_of_tunnel(config.tunnel_name))
        ops = plan_removal(have, ownership=_ownership(config, state_dir))
        failures = await kernel.apply(ops)
        refused = {failure.op: failure.message for failure in failures}
        removed += [text for op in ops if op not in refused and (text := _said(op))]
        # Whoever installs an agent here again wants a member.
        LeaveWish(state_dir).drop()
        return Cleaned(removed, list(refused.values()), _pods(run_dir, state_dir))
    finally:
        if lock is not None:
            os.close(lock)


def _claim(run_dir: Path) -> int | None:
    return claim_run_dir(run_dir) if run_dir.exists() else None


def _ownership(config: AgentConfig, state_dir: Path) -> Ownership:
    return Ownership(
        route_protocol=protocol_number(config.route_protocol),
        tunnel_name=config.tunnel_name,
        pools=frozenset(history.load(state_dir / "pools.json")),
        host_veths=frozenset(),  # the routes of pods that are still here
    )


def _remove_network(config: AgentConfig) -> list[str]:
    """Remove the network's configuration where the agent has written it: no runtime calls then."""
    path = Path(config.cni_conflist)
    if not config.cni_conflist or not path.exists():
        return []
    path.unlink()
    return [str(path)]


def _pods(run_dir: Path, state_dir: Path) -> list[str]:
    if not (run_dir / "endpoints").exists():
        return []
    records, _ = FileEndpoints(run_dir=run_dir, state_dir=state_dir).readable()
    return sorted({pod_of(one) for one in records})


def _said(op: Op) -> str:
    match op:
        case DeleteRoute(route=route):
            return f"route {route_text(route)}"
        case DeleteAddress(address=address):
            return f"address {address.interface} of {address.ifname}"
        case DeleteLink(name=name):
            return f"interface {name} (or set down, where the kernel keeps it)"
        case DeleteRuleset():
            return "table inet pycni"
        case _:
            return ""
