"""What a datastore in Kubernetes makes of lists and watches that are none: it begins anew.

Servers of other versions, and what stands between, send them; none is to end who listens.
"""

from pathlib import Path

import pytest

from pycni.datastore.kubernetes import KubernetesDatastore
from pycni.errors import TryAgain
from pycni.model.resources import Handle
from pycni.ports import Cursor
from tests.contract.datastore.stories import take
from tests.contract.datastore.test_kubernetes_answers import Scripted, event, page, spelled, told

NO_VERSIONS: tuple[object, ...] = (None, "", "six", "-1", [], {})


@pytest.mark.parametrize(
    "line",
    [
        {},
        {"object": spelled("a", 6)},
        {"type": "ADDED"},
        event("ADDED", None),
        event("ERROR", None),
        event("ERROR", []),
        event("ADDED", {}),
        event("ADDED", {"metadata": []}),
        event("BOOKMARK", {"metadata": {}}),
        event("ADDED", {"metadata": {"name": "a"}}),
        event("ADDED", {"metadata": {"resourceVersion": "6"}}),
        event("ADDED", {"metadata": {"name": 7, "resourceVersion": "6"}}),
        *(
            event("ADDED", {"metadata": {"name": "a", "resourceVersion": one}})
            for one in NO_VERSIONS
        ),
        5,
        None,
    ],
    ids=str,
)
def test_a_line_of_a_watch_that_is_no_change_is_a_reason_to_begin_anew(
    tmp_path: Path, line: object
) -> None:
    async def story(store: KubernetesDatastore) -> None:
        with pytest.raises(TryAgain, match=r"cannot make sense of a change in .*/ipamhandles"):
            await take(store.watch(Handle, after=Cursor("5")), 1)

    told(tmp_path, Scripted((200, page()), (200, [line])), story)


@pytest.mark.parametrize("version", NO_VERSIONS, ids=str)
def test_a_list_that_is_of_no_time_is_a_reason_to_begin_anew(
    tmp_path: Path, version: object
) -> None:
    answer = {"metadata": {"resourceVersion": version}, "items": []}

    async def story(store: KubernetesDatastore) -> None:
        with pytest.raises(TryAgain, match=r"cannot make sense of the list of .*/ipamhandles"):
            await take(store.watch(Handle, after=Cursor("5")), 1)

    told(tmp_path, Scripted((200, answer)), story)


@pytest.mark.parametrize(
    "answer",
    [
        {"metadata": {"resourceVersion": "5"}},
        {"metadata": {"resourceVersion": "5"}, "items": 5},
        {"metadata": {}, "items": []},
        {"metadata": [], "items": []},
    ],
    ids=str,
)
def test_an_answer_that_is_no_list_is_a_reason_to_ask_again(tmp_path: Path, answer: object) -> None:
    async def story(store: KubernetesDatastore) -> None:
        with pytest.raises(TryAgain, match=r"cannot make sense of the list of .*/ipamhandles"):
            await store.list(Handle)

    told(tmp_path, Scripted((200, answer)), story)
