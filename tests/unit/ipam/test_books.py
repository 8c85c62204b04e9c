"""What is read out of blocks and handles."""

from ipaddress import IPv4Network

from pycni.ipam.books import with_count
from pycni.model.resources import Handle

CIDR = IPv4Network("192.168.0.0/26")
OTHER = IPv4Network("192.168.0.64/26")


def test_handle_counts_are_set_and_not_lowered() -> None:
    handle = Handle("h", ((CIDR, 2), (OTHER, 1)))

    assert with_count(handle, CIDR, 1).blocks == ((CIDR, 1), (OTHER, 1))
    assert with_count(handle, CIDR, 0).blocks == ((OTHER, 1),)
    assert with_count(Handle("h"), CIDR, 0) == Handle("h")
