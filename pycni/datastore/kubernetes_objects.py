"""Where each kind lives in Kubernetes's API, and how its objects are spelled there: pure.

Calico's custom resources `crd.projectcalico.org/v1`, and Kubernetes's own Node with Calico's
annotations.
"""

import json
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from pycni.errors import DatastoreUnusable, InvalidInput
from pycni.model.resources import (
    Block,
    BlockAffinity,
    Handle,
    IPAMConfig,
    IPPool,
    IPReservation,
    Node,
    Resource,
    resource_name,
)
from pycni.model.resources_bgp import BGPConfiguration, BGPFilter, BGPPeer, Password
from pycni.model.schema import KIND_NAMES, decode_document, to_stored
from pycni.model.schema_config import node_annotations
from pycni.ports import Revision, Stored

T = TypeVar("T", bound=Resource)
Document = dict[str, Any]

_CALICO = "/apis/crd.projectcalico.org/v1/"
PATHS: dict[type[object], str] = {
    BGPConfiguration: _CALICO + "bgpconfigurations",
    BGPFilter: _CALICO + "bgpfilters",
    BGPPeer: _CALICO + "bgppeers",
    Block: _CALICO + "ipamblocks",
    BlockAffinity: _CALICO + "blockaffinities",
    Handle: _CALICO + "ipamhandles",
    IPAMConfig: _CALICO + "ipamconfigs",
    IPPool: _CALICO + "ippools",
    IPReservation: _CALICO + "ipreservations",
    Node: "/api/v1/nodes",
}
"""Where all objects of a kind are."""
# What `spec.deleted` says of an object that is being deleted: once a string, in Calico's CRD.
_DELETED: dict[type[object], object] = {Block: True, BlockAffinity: "true", Handle: True}
# Clears, in the one spelling that does, the list of who has written which field: nobody merges what
# is replaced whole, and the API server compares all of both versions for it at each write.
_UNTRACKED: list[Document] = [{}]
_OWN_METADATA = "projectcalico.org/metadata"
_CONFIGURED = (BGPConfiguration, BGPFilter, BGPPeer, IPPool, IPReservation)


def collection(kind: type[object]) -> str:
    """Return the path of all objects of a kind."""
    return PATHS[kind]


def place(kind: type[object], name: str) -> str:
    """Return the path of one object."""
    return f"{PATHS[kind]}/{quote(name, safe='')}"


def has_own_metadata(kind: type[object]) -> bool:
    """Tell whether a kind's objects carry, in an annotation, metadata that Calico's API shows.

    What people configure does.
    """
    return kind in _CONFIGURED


def creation(value: Resource, *, own: Document | None) -> Document:
    """Return what to create for a value, with that metadata of its own if its kind has such."""
    _refuse_password(value)
    document = to_stored(value)
    if own is not None:
        text = json.dumps(own, separators=(",", ":"))
        document["metadata"]["annotations"] = {_OWN_METADATA: text}
    return document


def _refuse_password(value: Resource) -> None:
    password: Password | None = None
    if isinstance(value, BGPPeer):
        password = value.password
    elif isinstance(value, BGPConfiguration):
        password = value.mesh_password
    if isinstance(password, str):
        raise InvalidInput(
            f"cannot keep the password of {KIND_NAMES[type(value)]} {resource_name(value)} in the"
            " cluster's objects, which many may read: keep it in a Secret, and write"
            " {secretKeyRef: {name: …, key: …}} (docs/bgp.md, Passwords)"
        )


def is_replaced_whole(kind: type[object]) -> bool:
    """Tell whether a kind's objects are IPAM's alone, so that an update may write all of one."""
    return kind in _DELETED


def replacement(value: Resource, revision: Revision) -> Document:
    """Return what an object of IPAM's is to be, if it is as it was at a revision."""
    document = to_stored(value)
    document["metadata"] |= {"resourceVersion": revision.token, "managedFields": _UNTRACKED}
    return document


def spec_patch(value: Resource, revision: Revision) -> list[Document]:
    """Return a JSON patch of what is configured, if it is as it was; others' metadata stays."""
    _refuse_password(value)
    return [
        {"op": "replace", "path": "/metadata/resourceVersion", "value": revision.token},
        {"op": "replace", "path": "/spec", "value": to_stored(value)["spec"]},
    ]


def node_patch(before: Document, node: Node, revision: Revision) -> tuple[Document, bool]:
    """Return a merge patch of a Node's metadata, and whether its labels change.

    Annotations and whatever else others have written stay.  Labels are all the cluster's: who
    changes them has to be allowed to.
    """
    metadata: Document = {
        "resourceVersion": revision.token,
        "annotations": node_annotations(node),
    }
    have, want = before["metadata"].get("labels") or {}, dict(node.labels)
    if have != want:
        metadata["labels"] = {key: want.get(key) for key in have | want}
    return {"metadata": metadata}, "labels" in metadata


def deletion_mark(kind: type[object], revision: Revision) -> Document | None:
    """Return a merge patch that marks an object as deleted; None: this kind knows no mark.

    Calico deletes what IPAM keeps in two steps: whoever sees the mark takes the object for gone,
    and finishes.
    """
    if kind not in _DELETED:
        return None
    return {
        "metadata": {"resourceVersion": revision.token, "managedFields": _UNTRACKED},
        "spec": {"deleted": _DELETED[kind]},
    }


def is_marked(kind: type[object], document: Document) -> bool:
    """Tell whether an object is marked as deleted."""
    return kind in _DELETED and (document.get("spec") or {}).get("deleted") in (True, "true")


def preconditions(document: Mapping[str, Any]) -> Document:
    """Return the options of a deletion of just this version of just this object."""
    metadata = document["metadata"]
    wanted = {key: metadata[key] for key in ("uid", "resourceVersion") if key in metadata}
    return {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": wanted}


def stored_of(kind: type[T], document: Document) -> Stored[T]:
    """Read an object; raise `DatastoreUnusable` when it is not what it must be."""
    return Stored(
        decode_document(kind, document, name=name_of(document)),
        Revision(str(document["metadata"]["resourceVersion"])),
    )


def name_of(document: Document) -> str:
    """Return an object's name."""
    name = document["metadata"]["name"]
    if not isinstance(name, str):
        raise DatastoreUnusable(f"cannot read an object whose name is {name!r}")
    return name


def written(value: T, document: Document) -> Stored[T]:
    """Return a value with the revision that the server has just given it."""
    return Stored(value, Revision(str(document["metadata"]["resourceVersion"])))
