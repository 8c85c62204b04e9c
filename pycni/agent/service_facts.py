"""What is known of Services, and whether a change of it changes what this node announces.

No input or output.  In a big cluster endpoints come and go all the time, and nearly none of them
makes a difference here.
"""

from typing import assert_never

from pycni.model.network import IPNetwork
from pycni.model.services import (
    EndpointSlice,
    ServiceChanged,
    ServiceNews,
    ServicesListed,
    SliceChanged,
    SlicesListed,
)
from pycni.plan.inputs import Inputs
from pycni.plan.services import announced_of, ranges_of


class ServiceFacts:
    """Keeps `Inputs.services` and `Inputs.slices`."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self._service_of: dict[str, str] = {}
        self._listed: set[type] = set()

    @property
    def is_complete(self) -> bool:
        """Tell whether both kinds have been listed."""
        return self._listed == {ServicesListed, SlicesListed}

    def heed(self, news: ServiceNews) -> bool:
        """Learn something; return whether announcements may be different now."""
        match news:
            case ServicesListed():
                self._listed.add(ServicesListed)
                self._inputs.services = {one.name: one for one in news.values}
                return True
            case SlicesListed():
                self._listed.add(SlicesListed)
                self._inputs.slices.clear()
                self._service_of.clear()
                for one in news.values:
                    self._set_slice(one.name, one)
                return True
            case ServiceChanged():
                before = self._announced(news.name)
                self._inputs.services.pop(news.name, None)
                if news.value is not None:
                    self._inputs.services[news.name] = news.value
                return before != self._announced(news.name)
            case SliceChanged():
                return self._slice_changed(news)
            case _:
                assert_never(news)

    def _slice_changed(self, news: SliceChanged) -> bool:
        # Its label may name another Service than before.
        old = self._service_of.get(news.name)
        new = news.value.service if news.value is not None else old
        services = {name for name in (old, new) if name is not None}
        before = {name: self._announced(name) for name in services}
        self._set_slice(news.name, news.value)
        return before != {name: self._announced(name) for name in services}

    def _set_slice(self, name: str, value: EndpointSlice | None) -> None:
        slices = self._inputs.slices
        old = self._service_of.pop(name, None)
        if old is not None:
            del slices[old][name]
            if not slices[old]:
                del slices[old]
        if value is not None:
            slices.setdefault(value.service, {})[name] = value
            self._service_of[name] = value.service

    def _announced(self, name: str) -> set[tuple[IPNetwork, str]]:
        service = self._inputs.services.get(name)
        if service is None:
            return set()
        return set(announced_of(self._inputs, service, ranges_of(self._inputs)))
