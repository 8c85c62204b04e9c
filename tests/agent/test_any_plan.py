"""Any routes there, any routes wanted: applying the plan leads from the ones to the others."""

from collections.abc import Sequence
from ipaddress import ip_address, ip_network

import hypothesis.strategies as st
from hypothesis import given

from pycni.kernel.fake import FakeKernel
from pycni.model.network import KernelState, NextHop, Route, RouteKey, RouteType, Tunnel
from pycni.plan.delta import Gate, plan
from pycni.plan.desired import Desired
from pycni.plan.iproute import route_text
from pycni.plan.ownership import Ownership
from tests.agent.histories import BLOCKS, numbers
from tests.virtual_time import run

ways = st.sampled_from(["tunl0", "eth0", "cali0", None])
any_route = st.builds(
    lambda block, way, protocol, via: _route(BLOCKS[block], way, protocol=protocol, via=via),
    numbers,
    ways,
    st.sampled_from([3, 4, 12]),
    st.integers(1, 3),
)


def _route(dst: str, way: str | None, *, protocol: int, via: int) -> Route:
    key = RouteKey(ip_network(dst))
    if way is None:
        return Route(key, type=RouteType.BLACKHOLE, protocol=protocol)
    hop = NextHop(way, gateway=ip_address(f"10.0.0.{via}"), is_onlink=True)
    return Route(key, next_hops=frozenset({hop}), protocol=protocol)


def _kernel(routes: Sequence[Route]) -> FakeKernel:
    kernel = FakeKernel()
    for name in ("eth0", "tunl0", "cali0"):
        kernel.add_link(name, kind="ipip" if name == "tunl0" else "veth", mtu=1480)
    for route in routes:
        if route not in kernel.routes():
            kernel.append_route(route)
    return kernel


@given(st.lists(any_route, max_size=6), st.lists(any_route, max_size=6))
def test_applying_the_plan_leads_to_what_is_wanted(there: list[Route], wanted: list[Route]) -> None:
    ownership = Ownership(
        route_protocol=12,
        tunnel_name="tunl0",
        pools=frozenset({ip_network("192.168.0.0/16")}),
        host_veths=frozenset({"cali0"}),
    )
    want = Desired(
        tunnels={"tunl0": Tunnel("tunl0", "ipip", 1480)},
        # What we write is ours by its marks.
        routes={r.key: r for r in wanted if ownership.owns(r)},
    )

    async def story() -> None:
        kernel = _kernel(there)
        before = await kernel.snapshot([])
        first = plan(want, before, ownership=ownership, gate=Gate())
        failures = await kernel.apply(first.ops)
        after = await kernel.snapshot([])
        again = plan(want, after, ownership=ownership, gate=Gate())

        assert failures == []
        assert again.ops == []
        foreign = [r for r in there if not ownership.owns(r) and r not in wanted]
        assert [route_text(r) for r in foreign if r not in kernel.routes()] == []
        conflicts = {c.wanted.key for c in first.conflicts}
        assert _missing(want.routes, after) == conflicts
        ours = [r for routes in after.routes.values() for r in routes if ownership.owns(r)]
        assert {r.key for r in ours} <= want.routes.keys()

    run(story())


def _missing(want: dict[RouteKey, Route], have: KernelState) -> set[RouteKey]:
    return {key for key, route in want.items() if route not in have.routes.get(key, ())}
