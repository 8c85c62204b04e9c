"""Follow the Secrets in which a cluster keeps passwords of BGP sessions, while any is named.

An agent may read those alone that deploy/bgp-passwords.yaml names.  A password that was known and
is gone goes on: sessions that are up are not to end because somebody deletes a Secret.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from pycni.agent.following import follow
from pycni.agent.messages import SecretsRead
from pycni.errors import InvalidInput
from pycni.ipam.retries import Sleep, asyncio_sleep
from pycni.model.resources_bgp import SecretKey
from pycni.model.schema_fields import check_password
from pycni.ports_cluster import Cluster

_NO_CLUSTER = (
    "there is no cluster whose Secrets could be read: write the password itself into the object"
)


class SecretWatch:
    """Follows what is wanted; `look` says what that is."""

    def __init__(
        self,
        cluster: Cluster | None,
        *,
        post: Callable[[SecretsRead], None],
        report: Callable[[str, str], None],
        sleep: Sleep = asyncio_sleep,
    ) -> None:
        self._cluster = cluster
        self._post = post
        self._report = report
        self._sleep = sleep
        self._wanted: frozenset[SecretKey] = frozenset()
        self._held: dict[str, Mapping[str, bytes] | None] = {}
        self._changed = asyncio.Event()

    def look(self, wanted: frozenset[SecretKey]) -> None:
        """Follow the Secrets of these from now on, and no others."""
        if wanted == self._wanted:
            return
        for place in self._wanted - wanted:
            self._report(_title(place), "")
        self._wanted = wanted
        self._changed.set()

    async def run(self) -> None:
        """Follow until cancelled."""
        following: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                names = {place.secret for place in self._wanted}
                for name in following.keys() - names:
                    following.pop(name).cancel()
                    self._held.pop(name, None)
                    self._report(f"Secret {name}", "")
                if self._cluster is None:
                    for place in sorted(self._wanted):
                        self._report(_title(place), _NO_CLUSTER)
                else:
                    for name in sorted(names - following.keys()):
                        following[name] = group.create_task(self._follow(self._cluster, name))
                    self._judge(place for place in self._wanted if place.secret in self._held)
                await self._changed.wait()

    async def _follow(self, cluster: Cluster, name: str) -> None:
        def heed(held: Mapping[str, bytes] | None) -> None:
            self._held[name] = held
            self._report(f"Secret {name}", "")
            self._judge(place for place in self._wanted if place.secret == name)

        source = partial(cluster.secret, name)
        await follow(f"Secret {name}", source, heed=heed, report=self._report, sleep=self._sleep)

    def _judge(self, places: Iterable[SecretKey]) -> None:
        """Post the passwords that there are, and say of the others why there is none."""
        passwords = {}
        for place in sorted(places):
            try:
                passwords[place] = password_in(self._held[place.secret], place)
                self._report(_title(place), "")
            except InvalidInput as exc:
                self._report(_title(place), str(exc))
        if passwords:
            self._post(SecretsRead(passwords))


def _title(place: SecretKey) -> str:
    return f"BGP password {place}"


def password_in(held: Mapping[str, bytes] | None, place: SecretKey) -> str:
    """Return the password at a place; raise `InvalidInput`, without it, when there is none."""
    if held is None:
        raise InvalidInput(
            f"there is no Secret {place.secret} beside the agents: sessions that it has the"
            f" password of wait;  kubectl -n kube-system create secret generic {place.secret}"
            f" --from-literal={place.key}=…"
        )
    found = held.get(place.key)
    if found is None:
        known = ", ".join(sorted(held)) or "none"
        raise InvalidInput(f"Secret {place.secret} has no key {place.key}, only: {known}")
    try:
        text = found.decode("ascii")
    except UnicodeDecodeError:
        # Without the cause, which holds the bytes.
        raise InvalidInput(f"{place}: a password has ASCII characters alone") from None
    return check_password(text, path=str(place))
