"""Whatever comes is a request or an error."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pycni.cni.commands import Command
from pycni.cni.errors import CniError
from pycni.cni.protocol import parse
from tests.unit.cni.test_protocol import DOCUMENT, ENVIRONMENT, POD, VERSIONS

NAMES = ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"]
KEYS = [
    "cniVersion", "name", "type", "mtu", "ipam", "dns", "prevResult", "nodename", "run_dir",
    "datastore_type", "log_level", "container_settings", "agent_timeout", "isDefaultGateway",
    "cni.dev/valid-attachments", "cni.dev/attachments", "ipv4_pools", "assign_ipv6",
]  # fmt: skip
texts = st.text(st.characters(exclude_characters="\0"), max_size=20) | st.sampled_from(
    [*(c.value for c in Command), *VERSIONS, "net", "eth0", "IP=1.2.3.4;X", POD]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(NAMES), texts), st.binary(max_size=200))
def test_any_bytes_are_a_request_or_an_error(environment: dict[str, str], stdin: bytes) -> None:
    try:
        parse(environment, stdin)
    except CniError:
        return


@given(
    st.dictionaries(st.sampled_from(NAMES), texts),
    st.sampled_from([c.value for c in Command]),
    st.dictionaries(st.sampled_from(KEYS), values),
)
def test_any_document_is_a_request_that_can_be_used_or_an_error(
    environment: dict[str, str], verb: str, document: dict[str, Any]
) -> None:
    text = json.dumps({**DOCUMENT, **document}).encode()
    try:
        request = parse({**ENVIRONMENT, **environment, "CNI_COMMAND": verb}, text)
    except CniError as error:
        json.dumps(error.msg)
        return

    # Names end up in files, netlink messages and the datastore.
    for name in (str(request.key), request.handle_id, request.host_veth, request.config.run_dir):
        name.encode()
