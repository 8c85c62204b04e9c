"""Whatever the runtime sends is answered, by a request or by an error in so many words."""

import json
import sys

import pytest

from pycni.cni.main import Reply, parse_or_reply

ENVIRONMENT = {
    "CNI_CONTAINERID": "c",
    "CNI_IFNAME": "eth0",
    "CNI_NETNS": "/run/netns/x",
}


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_what_is_nested_too_deeply_to_be_shown_is_undecodable(verb: str) -> None:
    """Just below the depth at which it can't be read either, wherever that is."""
    for depth in range(sys.getrecursionlimit() - 300, sys.getrecursionlimit()):
        route = {"dst": "DEEP"}
        ipam = {"type": "pycni-ipam", "routes": [route]}
        document = {"cniVersion": "1.1.0", "name": "net", "type": "bridge", "ipam": ipam}
        deep = '{"a":' * depth + "1" + "}" * depth
        stdin = json.dumps(document).replace('"DEEP"', deep).encode()

        reply = parse_or_reply({**ENVIRONMENT, "CNI_COMMAND": verb}, stdin)

        assert isinstance(reply, Reply)
        assert json.loads(reply.output)["code"] in (6, 7)
