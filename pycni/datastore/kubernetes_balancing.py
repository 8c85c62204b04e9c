"""What whoever gives LoadBalancer addresses asks of a cluster, and tells it.

`deploy/load-balancer.yaml` gives the rights for it, which agents have not by themselves.
"""

import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from pycni.datastore.kubernetes_api import MERGE_PATCH, Api, Refused, hinting
from pycni.datastore.kubernetes_services import SERVICES, listed
from pycni.datastore.kubernetes_watch import events
from pycni.errors import Conflict, InvalidInput
from pycni.model.network import IPAddress
from pycni.model.schema_service import full_name, parse_balanced
from pycni.model.services import BalancedService

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
LEASE = "pycni-load-balancer"
LEASE_S = 15
"""How long a leader that says nothing is waited for."""
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
_ATTEMPTS = 2
_FILE = "deploy/load-balancer.yaml"


class KubernetesBalancing:
    """The part of a cluster that is about LoadBalancer addresses; it shares the connections."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._seen: tuple[object, float] = (None, 0.0)

    # --- who does it ----------------------------------------------------------------------------

    async def lead(self, holder: str) -> bool:
        """Take the Lease, or renew it; return whether it is the holder's now.

        Another's is taken when it has not changed for as long as it lasts, by our own clock: the
        clocks of nodes may differ.
        """
        for _ in range(_ATTEMPTS):
            try:
                with hinting(_FILE):
                    return await self._lead(holder)
            except Refused as exc:
                # Somebody else was faster; it may still be the holder's, with a label, say.
                if exc.code not in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
                    raise InvalidInput(f"cannot take Lease {LEASE}: {exc}") from exc
        return False

    async def _lead(self, holder: str) -> bool:
        now = datetime.now(UTC).strftime(_TIME)
        mine = {"holderIdentity": holder, "leaseDurationSeconds": LEASE_S, "renewTime": now}
        try:
            lease = await self._api.call("GET", f"{LEASES}/{LEASE}")
        except Refused as exc:
            if exc.code != HTTPStatus.NOT_FOUND:
                raise
            body: dict[str, Any] = {"metadata": {"name": LEASE}, "spec": mine}
            await self._api.call("POST", LEASES, body=body)
            return True
        spec = lease.get("spec") or {}
        there = (spec.get("holderIdentity"), spec.get("renewTime"))
        if there != self._seen[0]:
            self._seen = (there, time.monotonic())
        is_over = time.monotonic() - self._seen[1] > LEASE_S
        if there[0] not in (holder, "", None) and not is_over:
            return False
        changes = 0 if there[0] == holder else 1
        mine["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + changes
        lease["spec"] = spec | mine
        await self._api.call("PUT", f"{LEASES}/{LEASE}", body=lease)
        return True

    # --- Services -------------------------------------------------------------------------------

    async def services(self) -> AsyncIterator[Sequence[BalancedService]]:
        """Yield all Services now, and again whenever one of ours differs in what matters."""
        values, after = await listed(self._api, SERVICES, parse_balanced, hint=_FILE)
        known = {one.name: one for one in values}
        yield values
        async for event in events(self._api, SERVICES, after=after):
            name = full_name(event["object"]) or ""
            before = known.pop(name, None)
            one = None if event["type"] == "DELETED" else parse_balanced(event["object"])
            if one is not None:
                known[name] = one
            # Most are not ours, and whoever hears of one looks at everything.
            if one != before and any(it is not None and it.is_ours for it in (one, before)):
                yield tuple(known.values())

    async def service(self, name: str) -> BalancedService | None:
        """Return a Service as it is now."""
        try:
            with hinting(_FILE):
                return parse_balanced(await self._api.call("GET", _place(name)))
        except Refused as exc:
            if exc.code == HTTPStatus.NOT_FOUND:
                return None
            raise InvalidInput(f"cannot read Service {name}: {exc}") from exc

    async def set_ingress(self, service: BalancedService, addresses: Sequence[IPAddress]) -> None:
        """Have the status say which addresses a Service has, if it is as it was read.

        Raises `Conflict` when it is not, or gone: read it again, and decide again.
        """
        body = {
            "metadata": {"resourceVersion": service.revision, "uid": service.uid},
            "status": {"loadBalancer": {"ingress": [{"ip": str(one)} for one in addresses]}},
        }
        try:
            with hinting(_FILE):
                path = f"{_place(service.name)}/status"
                await self._api.call("PATCH", path, body=body, content_type=MERGE_PATCH)
        except Refused as exc:
            what = f"cannot write the status of Service {service.name}: {exc}"
            if exc.code in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
                raise Conflict(what) from exc
            raise InvalidInput(what) from exc

    async def warn(self, service: BalancedService, *, reason: str, message: str) -> None:
        """Make an Event about a Service, which `kubectl describe service` shows."""
        namespace, _, name = service.name.partition("/")
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        event = {
            "metadata": {"generateName": f"{name}.", "namespace": namespace},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Service",
                "namespace": namespace,
                "name": name,
                "uid": service.uid,
            },
            "type": "Warning",
            "reason": reason,
            "message": message,
            "source": {"component": "pycni-agent"},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        path = f"/api/v1/namespaces/{quote(namespace)}/events"
        try:
            await self._api.call("POST", path, body=event)
        except Refused as exc:
            raise InvalidInput(f"cannot make an Event about Service {service.name}: {exc}") from exc


def _place(name: str) -> str:
    namespace, _, own = name.partition("/")
    return f"/api/v1/namespaces/{quote(namespace)}/services/{quote(own)}"
