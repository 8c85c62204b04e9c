"""Container images as OCI archives, written from files of this machine.

An image has a single layer, which holds what its programs open and nothing else.  Equal files give
equal archives.  Knows nothing of the cluster that will run them.
"""

import hashlib
import io
import json
import os
import platform
import re
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pycni.errors import TryAgain

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Changes with what is written of the same files: archives are kept by their digests.
FORMAT = 1
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# Programs look their own user up; without the second file Go resolvers ask DNS before /etc/hosts.
_ACCOUNTS = {
    "etc/passwd": b"root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
    "etc/group": b"root:x:0:\nnobody:x:65534:\n",
    "etc/nsswitch.conf": b"hosts: files dns\n",
}
_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x[0-9a-f]+\)")


@dataclass(frozen=True, slots=True)
class File:
    """A file of an image: what it holds, and where it will be."""

    source: Path
    target: str


@dataclass(frozen=True, slots=True)
class Image:
    """What to write.  `links` maps further names to the file that each of them is."""

    reference: str
    files: tuple[File, ...]
    entrypoint: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """Return the last part of the reference, without its tag."""
        return self.reference.rpartition("/")[2].partition(":")[0]

    def digest(self) -> str:
        """Return what changes with the image; size and time stand for a file's content."""
        stamps = [(str(f.source), f.source.stat()) for f in self.files]
        seen = [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stamps]
        return hashlib.sha256(repr((FORMAT, self, seen)).encode()).hexdigest()[:16]


def with_libraries(*programs: Path) -> list[File]:
    """Return programs of this machine and the libraries that they load, each at its own place."""
    ran = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise TryAgain(
            f"cannot tell what {programs[0]} loads: {ran.stderr.strip() or 'ldd failed'}"
        )
    paths = dict.fromkeys([*map(str, programs), *_LIBRARY.findall(ran.stdout)])
    return [File(Path(path), path) for path in paths]


def write(image: Image, path: Path) -> None:
    """Write an image's archive, by rename."""
    fresh = path.with_name(f"{path.name}.new.{os.getpid()}")
    layer = path.with_name(f"{path.name}.layer.{os.getpid()}")
    try:
        _write_layer(image, layer)
        _write_archive(image, fresh, layer=layer)
        fresh.rename(path)
    finally:
        layer.unlink(missing_ok=True)
        fresh.unlink(missing_ok=True)


def _write_layer(image: Image, path: Path) -> None:
    targets = [PurePosixPath(f.target.lstrip("/")) for f in image.files]
    links = {PurePosixPath(name.lstrip("/")): target for name, target in image.links}
    others = [PurePosixPath("tmp"), *map(PurePosixPath, _ACCOUNTS)]
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for directory in _parents_of([*targets, *links, *others]):
            tar.addfile(_entry(directory, kind=tarfile.DIRTYPE, mode=0o755))
        tar.addfile(_entry("tmp", kind=tarfile.DIRTYPE, mode=0o1777))
        for name, content in _ACCOUNTS.items():
            _add_bytes(tar, name, content)
        for file, target in zip(image.files, targets, strict=True):
            _add_file(tar, str(target), file.source)
        for link, meant in links.items():
            entry = _entry(str(link), kind=tarfile.SYMTYPE, mode=0o777)
            entry.linkname = meant
            tar.addfile(entry)


def _parents_of(paths: Iterable[PurePosixPath]) -> list[str]:
    """Return the directories above some paths, each below its own."""
    return sorted({str(parent) for path in paths for parent in path.parents} - {"."})


def _entry(
    name: str, *, kind: bytes = tarfile.REGTYPE, mode: int, size: int = 0
) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size = kind, mode, size
    return entry


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    tar.addfile(_entry(name, mode=0o644, size=len(content)), io.BytesIO(content))


def _add_file(tar: tarfile.TarFile, name: str, source: Path) -> None:
    with source.open("rb") as stream:
        tar.addfile(_entry(name, mode=0o755, size=source.stat().st_size), stream)


def _write_archive(image: Image, path: Path, *, layer: Path) -> None:
    with layer.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    config = _json(_config(image, digest=digest))
    manifest = _json(_manifest(config, digest=digest, size=layer.stat().st_size))
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        _add_bytes(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add_bytes(tar, "index.json", _json(_index(image, manifest)))
        for blob in (config, manifest):
            _add_bytes(tar, f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}", blob)
        _add_file(tar, f"blobs/sha256/{digest}", layer)


def _json(document: object) -> bytes:
    return json.dumps(document, sort_keys=True).encode()


def _platform() -> dict[str, str]:
    machine = platform.machine()
    return {"os": "linux", "architecture": _ARCHITECTURES.get(machine, machine)}


def _config(image: Image, *, digest: str) -> dict[str, Any]:
    return {
        **_platform(),
        "config": {
            "Env": [f"PATH={PATH}"],
            "WorkingDir": "/",
            **({"Entrypoint": list(image.entrypoint)} if image.entrypoint else {}),
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }


def _descriptor(kind: str, *, digest: str, size: int) -> dict[str, Any]:
    media_type = f"application/vnd.oci.image.{kind}"
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}


def _described(kind: str, blob: bytes) -> dict[str, Any]:
    return _descriptor(kind, digest=hashlib.sha256(blob).hexdigest(), size=len(blob))


def _manifest(config: bytes, *, digest: str, size: int) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _described("config.v1+json", config),
        "layers": [_descriptor("layer.v1.tar", digest=digest, size=size)],
    }


def _index(image: Image, manifest: bytes) -> dict[str, Any]:
    names = {"io.containerd.image.name": image.reference}
    described = _described("manifest.v1+json", manifest)
    return {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{**described, "platform": _platform(), "annotations": names}],
    }
