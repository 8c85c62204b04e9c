"""What a datastore in Kubernetes makes of answers that a real server gives on bad days only."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from pycni.datastore import kubernetes_api
from pycni.datastore.kubernetes import KubernetesDatastore, open_kubernetes
from pycni.datastore.kubernetes_api import Access
from pycni.datastore.kubernetes_setup import Setup
from pycni.errors import Conflict, DatastoreUnusable, EventsLost, TryAgain
from pycni.model.resources import Handle
from pycni.ports import Cursor
from tests.contract.datastore.stories import handle, stop, take
from tests.kube.apiserver import ROOT
from tests.waiting import until

Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]
Story = Callable[[KubernetesDatastore], Awaitable[None]]


def spelled(name: str = "a", version: int = 5) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "uid": "u", "resourceVersion": str(version)},
        "spec": {"handleID": name, "block": {}},
    }


def page(*names: str, version: int = 5, more: str = "") -> dict[str, Any]:
    metadata = {"resourceVersion": str(version)} | ({"continue": more} if more else {})
    return {"metadata": metadata, "items": [spelled(name) for name in names]}


def event(kind: str, document: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {"type": kind, "object": document}


def status(code: int, reason: str, *, name: str = "") -> dict[str, Any]:
    details = {"details": {"name": name}} if name else {}
    return {
        "kind": "Status",
        "code": code,
        "reason": reason,
        "message": f"it is {reason}",
    } | details


class Scripted:
    """A server that gives the next of its answers to whatever comes."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.headers: list[Mapping[str, str]] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.method} {request.query.get('continue', '')}".strip())
        self.headers.append(request.headers)
        code, document, *rest = self.answers.pop(0)
        headers = rest[0] if rest else {}
        if isinstance(document, list):
            return web.Response(
                status=code, text="".join(json.dumps(one) + "\n" for one in document)
            )
        text = document if isinstance(document, str) else json.dumps(document)
        return web.Response(status=code, text=text, headers=headers)


def told(directory: Path, server: Scripted, story: Story) -> None:
    """Tell a story with a handle on a scripted server, whose answers it must use up."""

    async def main() -> None:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", server.answer)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        (_, port) = runner.addresses[0][:2]
        store = await open_kubernetes(Access(kubeconfig(directory, port)))
        try:
            async with asyncio.timeout(20):
                await story(store)
        finally:
            await store.close()
            await runner.cleanup()
        assert server.answers == []

    asyncio.run(main())


def kubeconfig(directory: Path, port: int, *, host: str = "127.0.0.1") -> Path:
    path = directory / "kubeconfig"
    document = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://{host}:{port}"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


# --- single requests ------------------------------------------------------------------------------


@pytest.mark.parametrize("after", ["0", "soon", None])
def test_a_busy_server_is_asked_again_after_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str | None
) -> None:
    monkeypatch.setattr(kubernetes_api, "_LONGEST_WAIT_S", 0.01)
    headers = {} if after is None else {"Retry-After": after}
    server = Scripted((429, status(429, "TooManyRequests"), headers), (200, spelled()))

    async def story(store: KubernetesDatastore) -> None:
        assert await store.get(Handle, "a") is not None

    told(tmp_path, server, story)


@pytest.mark.parametrize(
    ("answer", "error", "sentence"),
    [
        ((500, "oops"), TryAgain, r"can't do it now \(oops\)"),
        ((503, status(503, "ServiceUnavailable")), TryAgain, "it is ServiceUnavailable"),
        ((403, status(403, "Forbidden")), TryAgain, "the API server denies it"),
        ((404, "404 page not found"), DatastoreUnusable, "apply deploy/crds.yaml"),
        ((200, {**spelled(), "metadata": {"name": 7}}), DatastoreUnusable, "whose name is 7"),
        ((200, "no JSON"), TryAgain, "no JSON"),
        ((200, "null"), TryAgain, "null"),
        ((200, "[]"), TryAgain, r"\[\]"),
    ],
)
def test_an_answer_that_is_no_object_says_what_to_do(
    tmp_path: Path, answer: Answer, error: type[Exception], sentence: str
) -> None:
    async def story(store: KubernetesDatastore) -> None:
        with pytest.raises(error, match=sentence):
            await store.get(Handle, "a")

    told(tmp_path, Scripted(answer), story)


def test_a_server_that_stays_busy_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_api, "_LONGEST_WAIT_S", 0.01)

    async def story(store: KubernetesDatastore) -> None:
        with pytest.raises(TryAgain, match="TooManyRequests"):
            await store.get(Handle, "a")

    told(tmp_path, Scripted(*[(429, status(429, "TooManyRequests"))] * 3), story)


@pytest.mark.parametrize(
    "answer", [(404, status(404, "NotFound", name="a")), (409, status(409, "Conflict", name="a"))]
)
def test_a_marked_object_that_another_finishes_off_is_gone(tmp_path: Path, answer: Answer) -> None:
    marked = spelled()
    marked["spec"]["deleted"] = True

    async def story(store: KubernetesDatastore) -> None:
        assert await store.get(Handle, "a") is None

    told(tmp_path, Scripted((200, marked), answer), story)


def test_who_makes_and_deletes_without_end_is_told(tmp_path: Path) -> None:
    exists = (409, status(409, "AlreadyExists", name="a"))
    gone = (404, status(404, "NotFound", name="a"))

    async def story(store: KubernetesDatastore) -> None:
        with pytest.raises(TryAgain, match="others make and delete it all the time"):
            await store.create(handle("a"))

    told(tmp_path, Scripted(*[exists, gone] * 3), story)


def test_a_change_between_mark_and_deletion_is_a_conflict(tmp_path: Path) -> None:
    async def story(store: KubernetesDatastore) -> None:
        found = await store.get(Handle, "a")
        assert found is not None
        with pytest.raises(Conflict):
            await store.delete(Handle, "a", if_revision=found.revision)

    conflict = (409, status(409, "Conflict", name="a"))
    told(tmp_path, Scripted((200, spelled()), (200, spelled(version=6)), conflict), story)


def test_what_an_older_cluster_does_not_know_is_left_out_and_said(tmp_path: Path) -> None:
    policies = list(yaml.safe_load_all((ROOT / "deploy" / "admission.yaml").read_text()))
    unknown = (404, "404 page not found")

    async def story(_: KubernetesDatastore) -> None:
        setup = Setup(Access(tmp_path / "kubeconfig"))
        await setup.connect()
        done = await setup.apply(policies)
        await setup.close()
        assert [line.partition(":")[0] for line in done] == [
            "left out ValidatingAdmissionPolicy pycni-agent",
            "left out ValidatingAdmissionPolicyBinding pycni-agent",
        ]
        assert done[0].endswith("Kubernetes knows such from 1.30 on")

    told(tmp_path, Scripted(unknown, unknown), story)


# --- lists ----------------------------------------------------------------------------------------


def test_a_list_whose_rest_is_compacted_away_begins_again(tmp_path: Path) -> None:
    server = Scripted(
        (200, page("a", more="rest")),
        (410, status(410, "Expired")),
        (200, page("b", more="rest")),
        (200, page("c")),
    )

    async def story(store: KubernetesDatastore) -> None:
        listing = await store.list(Handle)
        assert [one.value.id for one in listing.items] == ["b", "c"]

    told(tmp_path, server, story)
    assert server.asked == ["GET", "GET rest", "GET", "GET rest"]


def test_a_list_that_never_comes_to_its_end_is_told(tmp_path: Path) -> None:
    async def story(store: KubernetesDatastore) -> None:
        with pytest.raises(TryAgain, match="they change too fast"):
            await store.list(Handle)

    told(tmp_path, Scripted(*[(410, status(410, "Expired"))] * 3), story)


def test_a_list_may_be_forbidden_by_its_form(tmp_path: Path) -> None:
    async def story(store: KubernetesDatastore) -> None:
        with pytest.raises(DatastoreUnusable, match=r"cannot watch .*/ipamhandles"):
            await take(store.watch(Handle, after=Cursor("5")), 1)

    told(tmp_path, Scripted((200, page()), (400, status(400, "BadRequest"))), story)


DEEP = '{"a":' * 5000 + "{}" + "}" * 5000


def deep(document: dict[str, Any]) -> str:
    """Return a text with an object that no parser of Python's can follow to its end."""
    return json.dumps(document).replace('"uid": "u"', f'"uid": "u", "managedFields": {DEEP}')


def test_what_is_nested_too_deep_hides_nothing_else_of_a_list(tmp_path: Path) -> None:
    async def story(store: KubernetesDatastore) -> None:
        listing = await store.list(Handle)
        assert [one.value.id for one in listing.items] == ["a", "b"]

    told(tmp_path, Scripted((200, deep(page("a", "b")))), story)


# --- watches --------------------------------------------------------------------------------------


def test_a_watch_goes_on_from_the_last_bookmark(tmp_path: Path) -> None:
    bookmark = event("BOOKMARK", {"metadata": {"resourceVersion": "9"}})
    server = Scripted(
        (200, page()),
        (200, [event("ADDED", spelled("a", 6)), bookmark]),
        (200, page(version=9)),
        (200, [event("ADDED", spelled("b", 12))]),
    )

    async def story(store: KubernetesDatastore) -> None:
        watch = store.watch(Handle, after=Cursor("5"))
        changes = await take(watch, 2)
        assert [(one.name, one.cursor.token) for one in changes] == [("a", "6"), ("b", "12")]
        await stop(watch)

    told(tmp_path, server, story)


@pytest.mark.parametrize(
    ("events", "error"),
    [
        ([event("ERROR", status(410, "Expired"))], EventsLost),
        ([event("ERROR", status(500, "InternalError"))], TryAgain),
        ([event("ADDED", spelled("a", 4))], EventsLost),
        (["torn"], TryAgain),
    ],
)
def test_a_watch_that_breaks_says_how(
    tmp_path: Path, events: list[Any], error: type[Exception]
) -> None:
    async def story(store: KubernetesDatastore) -> None:
        with pytest.raises(error):
            await take(store.watch(Handle, after=Cursor("5")), 1)

    answer = (200, "{torn\n") if events == ["torn"] else (200, events)
    told(tmp_path, Scripted((200, page()), answer), story)


def test_what_is_nested_too_deep_hides_nothing_else_of_a_watch(tmp_path: Path) -> None:
    lines = [event("ADDED", spelled("a", 6)), event("ADDED", spelled("b", 7))]

    async def story(store: KubernetesDatastore) -> None:
        watch = store.watch(Handle, after=Cursor("5"))
        assert [one.name for one in await take(watch, 2)] == ["a", "b"]
        await stop(watch)

    text = "".join(f"{deep(line)}\n" for line in lines)
    told(tmp_path, Scripted((200, page()), (200, text)), story)


def test_a_server_restored_from_a_backup_is_noticed(tmp_path: Path) -> None:
    async def story(store: KubernetesDatastore) -> None:
        with pytest.raises(EventsLost, match="the server is at 5"):
            await take(store.watch(Handle, after=Cursor("900")), 1)

    told(tmp_path, Scripted((200, page())), story)


# --- the environment ------------------------------------------------------------------------------


@pytest.mark.parametrize("exempt", ["", "10.0.0.0", "api.invalid"])
def test_the_environments_proxy_is_used_but_for_whom_it_exempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exempt: str
) -> None:
    async def story(store: KubernetesDatastore) -> None:
        monkeypatch.setenv("http_proxy", store.identity[0])
        monkeypatch.setenv("no_proxy", exempt)
        elsewhere = kubeconfig(tmp_path, 6443, host="api.invalid")
        proxied = await open_kubernetes(Access(elsewhere))
        try:
            if exempt == "api.invalid":
                with pytest.raises(TryAgain, match=r"api\.invalid"):
                    await proxied.get(Handle, "a")
            else:
                assert await proxied.get(Handle, "a") is not None
        finally:
            await proxied.close()

    answers = [] if exempt == "api.invalid" else [(200, spelled())]
    told(tmp_path, Scripted(*answers), story)


def test_nothing_of_netrc_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password secret\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(netrc))
    server = Scripted((200, spelled()))

    async def story(store: KubernetesDatastore) -> None:
        await store.get(Handle, "a")

    told(tmp_path, server, story)

    assert "Authorization" not in server.headers[0]


# --- pods -----------------------------------------------------------------------------------------


class Empty(Scripted):
    """A server without objects, whose watches end at once; it notes what was accepted."""

    def __init__(self) -> None:
        super().__init__()
        self.accepted: dict[str, str] = {}

    async def answer(self, request: web.Request) -> web.Response:
        if "watch" in request.query:
            self.accepted[f"watch {request.path}"] = request.headers["Accept"]
            return web.Response(text="")
        if request.query["limit"] == str(kubernetes_api.PAGE):
            self.accepted[f"list {request.path}"] = request.headers["Accept"]
        return web.Response(text=json.dumps(page()))


def test_of_pods_and_namespaces_nothing_is_asked_but_metadata(tmp_path: Path) -> None:
    server = Empty()

    async def story(store: KubernetesDatastore) -> None:
        running = asyncio.ensure_future(store.pods("node-0").run())
        await until(lambda: len(server.accepted) == 4)
        running.cancel()

    told(tmp_path, server, story)

    for path in ("/api/v1/pods", "/api/v1/namespaces"):
        assert ";as=PartialObjectMetadataList;" in server.accepted[f"list {path}"]
        assert ";as=PartialObjectMetadata;" in server.accepted[f"watch {path}"]
