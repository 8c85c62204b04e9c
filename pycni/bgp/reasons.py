"""Why a session ended, in words: the numbers of a NOTIFICATION by their registered names.

Pure.  Codes: RFC 4271, 4.5; subcodes: there, RFC 5492, RFC 6608 (state machine), RFC 4486 and
RFC 8538 (Cease).
"""

import re

_CODES = {
    1: "Message Header Error",
    2: "OPEN Message Error",
    3: "UPDATE Message Error",
    4: "Hold Timer Expired",
    5: "Finite State Machine Error",
    6: "Cease",
    7: "ROUTE-REFRESH Message Error",
}
_SUBCODES = {
    (1, 1): "Connection Not Synchronized",
    (1, 2): "Bad Message Length",
    (1, 3): "Bad Message Type",
    (2, 1): "Unsupported Version Number",
    (2, 2): "Bad Peer AS",
    (2, 3): "Bad BGP Identifier",
    (2, 4): "Unsupported Optional Parameter",
    (2, 6): "Unacceptable Hold Time",
    (2, 7): "Unsupported Capability",
    (3, 1): "Malformed Attribute List",
    (3, 2): "Unrecognized Well-known Attribute",
    (3, 3): "Missing Well-known Attribute",
    (3, 4): "Attribute Flags Error",
    (3, 5): "Attribute Length Error",
    (3, 6): "Invalid ORIGIN Attribute",
    (3, 8): "Invalid NEXT_HOP Attribute",
    (3, 9): "Optional Attribute Error",
    (3, 10): "Invalid Network Field",
    (3, 11): "Malformed AS_PATH",
    (5, 1): "Unexpected Message in OpenSent",
    (5, 2): "Unexpected Message in OpenConfirm",
    (5, 3): "Unexpected Message in Established",
    (6, 1): "Maximum Number of Prefixes Reached",
    (6, 2): "Administrative Shutdown",
    (6, 3): "Peer De-configured",
    (6, 4): "Administrative Reset",
    (6, 5): "Connection Rejected",
    (6, 6): "Other Configuration Change",
    (6, 7): "Connection Collision Resolution",
    (6, 8): "Out of Resources",
    (6, 9): "Hard Reset",
    (6, 10): "BFD Down",
}
_NUMBERS = re.compile(r"notification (sent|received) \((\d{1,3}),\s?(\d{1,3})\)", re.IGNORECASE)


def in_words(reason: str) -> str:
    """Return a reason with the names of its NOTIFICATION; without one as it is.

    "notification received (6,2)" becomes "the peer sent Cease: Administrative Shutdown (6,2)".
    """
    match = _NUMBERS.search(reason)
    if match is None:
        return reason
    code, subcode = int(match[2]), int(match[3])
    names = [_CODES.get(code, "an unknown error"), _SUBCODES.get((code, subcode), "")]
    who = "we sent" if match[1].lower() == "sent" else "the peer sent"
    return f"{who} {': '.join(name for name in names if name)} ({code},{subcode})"
