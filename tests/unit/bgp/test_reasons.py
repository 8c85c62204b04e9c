"""Why a session ended, as people read it."""

import pytest

from pycni.bgp.reasons import in_words


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("notification received (6,2)", "the peer sent Cease: Administrative Shutdown (6,2)"),
        ("notification sent (4,0)", "we sent Hold Timer Expired (4,0)"),
        ("Notification sent (2, 2)", "we sent OPEN Message Error: Bad Peer AS (2,2)"),
        (
            "peer reset, message [notification received (6,99)] error[x]",
            "the peer sent Cease (6,99)",
        ),
        ("notification received (99,1)", "the peer sent an unknown error (99,1)"),
        ("closing connection", "closing connection"),
        ("", ""),
    ],
)
def test_numbers_get_their_registered_names(reason: str, words: str) -> None:
    assert in_words(reason) == words
