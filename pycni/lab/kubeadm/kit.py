"""What a cluster's machines are given: programs, images and wheels, in one directory.

Made in the cache, by the command that starts the lab, before anything runs: builds take minutes the
first time and need the world outside, which no machine reaches.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pycni.errors import PycniError, TryAgain
from pycni.lab.kubeadm import images
from pycni.lab.kubeadm.images import File, Image
from pycni.lab.launch import ensure
from pycni.lab.uml_guest import CLONE, cache_directory

REPOSITORY = "localhost/kubernetes"
TOOLBOX = "localhost/toolbox:1"
REDIS = "localhost/redis:1"
PROGRAMS = ("kubeadm", "kubelet", "kubectl")
SERVERS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
CONTAINERD = ("containerd", "containerd-shim-runc-v2", "ctr")
XTABLES = "xtables-nft-multi"
IPTABLES = tuple(
    (f"/usr/sbin/{tables}{verb}", XTABLES)
    for tables in ("iptables", "ip6tables")
    for verb in ("", "-save", "-restore")
)
LOCK = "requirements/cluster.lock"
AGENT = "pycni"
TOOLS = ("sh", "sleep", "ping", "nslookup", "wget", "httpd", "ip", "cat", "hostname")


@dataclass(frozen=True, slots=True)
class Kit:
    """Where the things are.  `images` maps an image's name to its reference."""

    directory: Path

    @property
    def programs(self) -> Path:
        """Return the directory of what is on every machine's PATH."""
        return self.directory / "bin"

    @property
    def wheels(self) -> Path:
        """Return the directory from which pip installs without a network."""
        return self.directory / "wheels"

    def archive(self, name: str) -> Path:
        """Return an image's archive."""
        return self.directory / "images" / f"{name}.tar"

    def references(self) -> dict[str, str]:
        """Return the images' references by name."""
        lines = (self.directory / "images.list").read_text(encoding="utf-8").splitlines()
        return {name: reference for name, _, reference in (line.partition(" ") for line in lines)}

    def version(self) -> str:
        """Return Kubernetes's version: its servers' tag."""
        return self.references()["kube-apiserver"].rpartition(":")[2]


def make_kit(*, say: Callable[[str], None]) -> Kit:
    """Build what is missing, and put everything in one directory."""
    built = _built()
    wanted = _images(built, references=_references(built["kubeadm"]))
    content = {f"bin/{name}": built[name] for name in (*PROGRAMS, *CONTAINERD)}
    content |= {f"wheels/{wheel.name}": wheel for wheel in _wheels().iterdir()}
    content |= {f"images/{image.name}.tar": _archive(image, say=say) for image in wanted}
    content[f"images/{AGENT}.tar"] = Path(ensure("image"))
    references = "".join(f"{image.name} {image.reference}\n" for image in wanted)
    return assemble(content, references=references)


def _built() -> dict[str, Path]:
    """Return every program by name; builds what is missing, minutes each."""
    kubernetes = Path(ensure("kubernetes", "etcd", *PROGRAMS, *SERVERS))
    containerd = Path(ensure("containerd"))
    return {
        **{name: kubernetes / name for name in ("etcd", *PROGRAMS, *SERVERS)},
        **{name: containerd / name for name in CONTAINERD},
        **{name: Path(ensure(name)) for name in ("coredns", "pause", "busybox")},
    }


def _references(kubeadm: Path) -> dict[str, str]:
    """Return the images by name that this kubeadm starts a cluster of."""
    version = _said(kubeadm, "version", "-o", "short").strip()
    said = _said(
        kubeadm, "config", "images", "list",
        "--kubernetes-version", version, "--image-repository", REPOSITORY,
    )  # fmt: skip
    return {line.rpartition("/")[2].partition(":")[0]: line for line in said.split()}


def _said(*words: str | Path) -> str:
    ran = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise TryAgain(f"{words[0]} ended with {ran.returncode}: {ran.stderr.strip()}")
    return ran.stdout


def _images(built: dict[str, Path], *, references: dict[str, str]) -> list[Image]:
    found = [
        Image(references["pause"], (File(built["pause"], "/pause"),), ("/pause",)),
        Image(references["coredns"], (File(built["coredns"], "/coredns"),), ("/coredns",)),
        Image(
            TOOLBOX,
            (File(built["busybox"], "/bin/busybox"),),
            links=tuple((f"/bin/{tool}", "busybox") for tool in TOOLS),
        ),
    ]
    for name in ("etcd", *SERVERS):
        files = [File(built[name], f"/usr/local/bin/{name}")]
        if name == "kube-proxy":
            files += _packet_filters()
        links = IPTABLES if name == "kube-proxy" else ()
        found.append(Image(references[name], tuple(files), links=links))
    return [*found, _redis()]


def _packet_filters() -> list[File]:
    """Return what kube-proxy's modes run: nft, and iptables (by nftables) with its extensions."""
    programs = (_installed("nft", package="nftables"), _installed(XTABLES, package="iptables"))
    # Beside the C library, in Debian's directory of the architecture.
    extensions = sorted(Path("/usr/lib").glob("*/xtables/lib[xi]*_*.so"))
    return images.with_libraries(*programs, *extensions)


def _redis() -> Image:
    """Return Debian's server without its package, which would start it: one file has many names."""
    program = _installed("redis-check-rdb", package="redis-tools")
    links = (("/usr/bin/redis-server", program.name),)
    return Image(REDIS, tuple(images.with_libraries(program)), links=links)


def _installed(program: str, *, package: str) -> Path:
    found = shutil.which(program, path=images.PATH)
    if found is None:
        raise TryAgain(f"{program} is not installed: run  apt-get install {package}")
    return Path(found)


def _wheels() -> Path:
    """Return a directory with the wheels of pycni's own needs; asks a package index once."""
    lock = CLONE / LOCK
    wheels = cache_directory() / "wheels" / hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    if not wheels.exists():
        fresh = wheels.with_name(f"{wheels.name}.new.{os.getpid()}")
        pip = [sys.executable, "-I", "-m", "pip", "download", "-q", "--no-input",
               "--disable-pip-version-check", "--dest", str(fresh)]  # fmt: skip
        pip += ["--require-hashes", "-r", str(lock)]
        if subprocess.run(pip, check=False, stdout=sys.stderr).returncode != 0:
            shutil.rmtree(fresh, ignore_errors=True)
            raise TryAgain(
                "cannot fetch the Python packages of a node, see above: let pip reach a package"
                " index (PIP_INDEX_URL) or a directory of wheels (PIP_FIND_LINKS)"
            )
        fresh.rename(wheels)
    return wheels


def _archive(image: Image, *, say: Callable[[str], None]) -> Path:
    """Return an image's archive; writes what the cache doesn't hold."""
    archive = cache_directory() / "kubeadm" / "images" / f"{image.name}-{image.digest()}.tar"
    if not archive.exists():
        say(f"writing the image {image.reference} (once)")
        archive.parent.mkdir(parents=True, exist_ok=True)
        images.write(image, archive)
    return archive


def assemble(content: Mapping[str, Path], *, references: str) -> Kit:
    """Give a kit's files, which are all in the cache, one directory: by further names of them."""
    text = "\n".join([references, *(f"{name} {source}" for name, source in content.items())])
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    kit = Kit(cache_directory() / "kubeadm" / "kits" / key)
    if kit.directory.exists():
        return kit
    fresh = kit.directory.with_name(f"{key}.new.{os.getpid()}")
    try:
        for name, source in content.items():
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            (fresh / name).hardlink_to(source)
        (fresh / "images.list").write_text(references, encoding="utf-8")
        fresh.rename(kit.directory)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return kit


if __name__ == "__main__":
    try:
        print(make_kit(say=lambda text: print(text, file=sys.stderr)).directory)
    except PycniError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
