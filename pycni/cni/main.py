"""Run one CNI request with the engine: what the agent's server and the in-process form share.

`execute` never raises for anything that a request can cause: it always gives an exit status and
one JSON document (or nothing, for a verb whose success says nothing).
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pycni.cni import engine as verbs
from pycni.cni import upkeep
from pycni.cni.annotations import annotated
from pycni.cni.commands import Command
from pycni.cni.errors import CniError, Code, as_cni_error
from pycni.cni.protocol import Request, parse, version_of
from pycni.cni.results import render_error, render_version
from pycni.cni.tools import Engine
from pycni.errors import PycniError, TryAgain

_log = logging.getLogger(__name__)
# A ready encoder: json.dumps looks for circles in each document.
_encode = json.JSONEncoder(check_circular=False).encode


@dataclass(frozen=True, slots=True)
class Reply:
    """What the plugin prints and how it exits."""

    status: int
    output: bytes


def failure(error: CniError, *, version: str) -> Reply:
    """Return the reply to a request that failed."""
    return Reply(1, _json(render_error(error, version=version)))


def parse_or_reply(environment: Mapping[str, str], stdin: bytes) -> Request | Reply:
    """Parse; a bad request, and VERSION, are answered without an engine."""
    try:
        request = parse(environment, stdin)
    except CniError as error:
        return failure(error, version=version_of(stdin))
    except RecursionError:  # it was just read, but can't be shown in a sentence
        deep = CniError(Code.UNDECODABLE, "standard input is nested too deeply: simplify it")
        return failure(deep, version=version_of(stdin))
    if request.command is Command.VERSION:
        return Reply(0, _json(render_version(request.config.cni_version)))
    return request


async def execute(
    engine: Engine,
    request: Request,
    *,
    netns_fd: int | None,
    is_abandoned: Callable[[], bool] = lambda: False,
) -> Reply:
    """Do what a parsed request asks for."""
    version = request.config.cni_version
    try:
        result = await _dispatch(engine, request, netns_fd=netns_fd, is_abandoned=is_abandoned)
    except CniError as error:
        return failure(error, version=version)
    except PycniError as error:
        return failure(as_cni_error(error), version=version)
    except OSError as error:
        text = f"{request.command.value} {request.key} failed in the kernel: {error}"
        return failure(CniError(Code.IO_FAILURE, text), version=version)
    except Exception as error:  # noqa: BLE001  # border: the request dispatcher
        _log.exception("a request met a defect", extra={"endpoint": str(request.key)})
        text = f"{request.command.value} met a defect of pycni: {error!r}; please report it"
        return failure(CniError(Code.INTERNAL, text), version=version)
    return Reply(0, _json(result) if result is not None else b"")


async def _dispatch(
    engine: Engine,
    request: Request,
    *,
    netns_fd: int | None,
    is_abandoned: Callable[[], bool],
) -> dict[str, Any] | None:
    _check_node(engine, request)
    match request.command:
        case Command.ADD:
            fd = _required(netns_fd, request)
            request = await _annotated(engine, request)
            return await verbs.add(engine, request, netns_fd=fd, is_abandoned=is_abandoned)
        case Command.CHECK:
            await upkeep.check(engine, request, netns_fd=_required(netns_fd, request))
        case Command.DEL:
            await verbs.delete(engine, request, is_abandoned=is_abandoned)
        case Command.GC:
            await upkeep.collect_garbage(engine, request)
        case Command.STATUS:
            await upkeep.status(engine, request)
        case Command.VERSION:
            return render_version(request.config.cni_version)
    return None


async def _annotated(engine: Engine, request: Request) -> Request:
    """Return an ADD as the annotations of its pod and namespace change it."""
    args = request.args
    if engine.pods is None or not args.pod_name:
        return request
    pod = await engine.pods.get(args.pod_namespace, args.pod_name, uid=args.pod_uid)
    if pod is None:
        raise TryAgain(f"there is no pod {args.pod_namespace}/{args.pod_name} in the cluster")
    namespace = await engine.pods.annotations_of_namespace(args.pod_namespace)
    return annotated(request, pod=pod.annotations, namespace=namespace)


def _check_node(engine: Engine, request: Request) -> None:
    """Refuse a configuration that names another node: its addresses would be routed elsewhere."""
    name = request.config.nodename
    if name and name != engine.node:
        raise CniError(
            Code.INVALID_CONFIGURATION,
            f"the configuration says nodename {name!r}, but this node is {engine.node!r}:"
            " correct it, or run_dir leads to another node's agent",
        )


def _required(netns_fd: int | None, request: Request) -> int:
    if netns_fd is None:
        raise CniError(Code.INVALID_ENVIRONMENT, no_netns(request))
    return netns_fd


def no_netns(request: Request) -> str:
    """Say that there is no namespace to work in."""
    return (
        f"CNI_NETNS={request.netns!r} can't be opened as a network namespace:"
        " the container is gone, or the path is wrong"
    )


def _json(document: Mapping[str, Any]) -> bytes:
    return _encode(document).encode()
