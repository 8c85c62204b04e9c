"""Images that a container runtime can import: what is in them, and what their digests say."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import IO, Any

import pytest

from pycni.errors import TryAgain
from pycni.lab.kubeadm import images
from pycni.lab.kubeadm.images import File, Image


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    path.write_bytes(b"\x7fELF not really")
    return path


@pytest.fixture
def image(program: Path) -> Image:
    files = (File(program, "/usr/local/bin/serve"),)
    return Image("localhost/a/serve:v1", files, ("/serve", "-x"), (("/bin/s", "serve"),))


def contents(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {m.name: _read(tar.extractfile(m)) for m in tar.getmembers() if m.isfile()}


def _read(stream: IO[bytes] | None) -> bytes:
    assert stream is not None
    return stream.read()


def blob(archive: dict[str, bytes], descriptor: dict[str, Any]) -> bytes:
    """A blob by its descriptor, which must be right about it."""
    algorithm, _, digest = descriptor["digest"].partition(":")
    found = archive[f"blobs/{algorithm}/{digest}"]
    assert hashlib.sha256(found).hexdigest() == digest
    assert len(found) == descriptor["size"]
    return found


def test_every_digest_leads_to_what_it_names(image: Image, tmp_path: Path) -> None:
    images.write(image, tmp_path / "serve.tar")

    archive = contents(tmp_path / "serve.tar")
    (entry,) = json.loads(archive["index.json"])["manifests"]
    manifest = json.loads(blob(archive, entry))
    config = json.loads(blob(archive, manifest["config"]))
    (layer,) = manifest["layers"]
    assert entry["annotations"]["io.containerd.image.name"] == "localhost/a/serve:v1"
    assert config["config"]["Entrypoint"] == ["/serve", "-x"]
    assert config["rootfs"]["diff_ids"] == [layer["digest"]]
    assert blob(archive, layer)


def test_a_layer_has_the_files_their_directories_and_links(image: Image, tmp_path: Path) -> None:
    images.write(image, tmp_path / "serve.tar")

    archive = contents(tmp_path / "serve.tar")
    layers = sorted(archive, key=lambda name: len(archive[name]))
    (tmp_path / "layer.tar").write_bytes(archive[layers[-1]])
    with tarfile.open(tmp_path / "layer.tar") as tar:
        modes = {m.name: oct(m.mode) for m in tar.getmembers()}
        assert modes["usr/local/bin/serve"] == "0o755"
        assert modes["usr/local/bin"] == "0o755"
        assert modes["tmp"] == "0o1777"
        assert tar.getmember("bin/s").linkname == "serve"
        assert list(modes).index("usr/local") < list(modes).index("usr/local/bin/serve")


def test_equal_files_give_equal_archives_and_no_leavings(image: Image, tmp_path: Path) -> None:
    images.write(image, tmp_path / "one.tar")
    images.write(image, tmp_path / "two.tar")

    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.tar", "program", "two.tar"]


def test_a_changed_program_is_another_image(image: Image, program: Path) -> None:
    before = image.digest()

    program.write_bytes(b"\x7fELF not really, once more")

    assert image.digest() != before


def test_a_program_comes_with_the_libraries_that_it_loads() -> None:
    found = [file.target for file in images.with_libraries(Path("/bin/ls"))]

    assert found[0] == "/bin/ls"
    assert any(target.rpartition("/")[2].startswith("libc.so") for target in found)
    assert all(Path(target).is_file() for target in found)


def test_what_is_no_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(TryAgain, match=rf"cannot tell what {tmp_path}/none loads"):
        images.with_libraries(tmp_path / "none")
