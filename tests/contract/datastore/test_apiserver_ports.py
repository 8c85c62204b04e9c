"""The ports of the tests' own API servers, several of which start side by side."""

import contextlib
import errno
import os
import socket

import pytest

from tests.kube.apiserver import reserve_port


def test_a_reserved_port_is_given_to_nobody_else_and_serves_one_listener() -> None:
    with contextlib.closing(reserve_port()) as reserved:
        where = reserved.getsockname()
        with (
            socket.socket() as stranger,
            pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)),
        ):
            stranger.bind(where)
        for _ in range(2):  # a server may start again
            with socket.create_server(where), socket.create_connection(where):
                pass
