"""A route's key: what it is looked up by."""

from dataclasses import replace
from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st

from pycni.model.network import RouteKey

keys = st.builds(
    RouteKey,
    st.sampled_from([ip_network("10.0.0.0/8"), ip_network("10.0.0.0/9"), ip_network("fd00::/8")]),
    table=st.integers(1, 2),
    tos=st.integers(0, 1),
    priority=st.integers(0, 1),
)


@given(keys, keys)
def test_equal_keys_are_found_by_each_other_and_others_are_not(
    one: RouteKey, other: RouteKey
) -> None:
    fields = (one.dst, one.table, one.tos, one.priority)
    is_same = fields == (other.dst, other.table, other.tos, other.priority)

    assert ({one: "found"}.get(other) == "found") == is_same
    assert ({replace(one, priority=7): 1}.get(replace(other, priority=7)) == 1) == (
        fields[:3] == (other.dst, other.table, other.tos)
    )
