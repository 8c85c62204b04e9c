"""install.sh on a node of a Kubernetes cluster, and beside a host's network managers."""

from pathlib import Path

import pytest

from tests.unit.installing import AGENT, NETWORK, installed, run

KUBECONFIG = "apiVersion: v1\nclusters: []\nusers: [{name: %s}]\n"
IN_CLUSTER = "datastore: kubernetes\nkubeconfig: /etc/pycni/kubeconfig\nnode: build\n"


def admin_of(root: Path) -> Path:
    path = root / "etc/kubernetes/admin.conf"
    path.parent.mkdir(parents=True)
    path.write_text(KUBECONFIG % "admin")
    return path


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--datastore", "etcd"), 2, "--datastore etcd: it is sqlite or kubernetes"),
        (("--datastore", "sqlite", "--kubeconfig", "FILE"), 2, "leave one of them out"),
        (("--kubeconfig", "FILE"), 2, "--kubeconfig is for --datastore kubernetes: say that"),
        (("--datastore", "kubernetes", "--kubeconfig", "/none"), 2, "there is no such file"),
        (("--datastore", "kubernetes", "--kubeconfig", __file__), 2, "this is no kubeconfig"),
        (("--datastore", "kubernetes"), 1, "on a control-plane node run kubeadm init first"),
        (("--datastore", "kubernetes", "--pool", "10.0.0.1/8"), 2, "bits beyond the prefix"),
    ],
)
@pytest.mark.parametrize("mode", [("--dry-run",), ()])
def test_a_wrong_way_to_the_cluster_is_named_before_anything_is_done(
    tmp_path: Path, words: tuple[str, ...], status: int, said: str, mode: tuple[str, ...]
) -> None:
    root, kubeconfig = tmp_path / "root", tmp_path / "kubeconfig"
    root.mkdir()
    kubeconfig.write_text(KUBECONFIG % "me")

    ran = run(root, *(word.replace("FILE", str(kubeconfig)) for word in words), *mode)

    assert (ran.returncode, said in ran.stderr) == (status, True), ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert not list(root.iterdir())


def test_dry_run_on_a_worker_says_what_becomes_of_its_credentials(tmp_path: Path) -> None:
    root, kubeconfig = tmp_path / "root", tmp_path / "kubeconfig"
    root.mkdir()
    kubeconfig.write_text(KUBECONFIG % "pycni-agent")
    words = ("--datastore", "kubernetes", "--kubeconfig", str(kubeconfig))

    ran = run(root, *words, "--pool", "10.0.0.0/8", "--dry-run")

    assert ran.returncode == 0, ran.stderr
    place = f"{root}/etc/pycni/kubeconfig"
    for line in (
        f"would make {root}/opt/pycni, with what requirements/cluster.lock names",
        f"would see that the cluster can be used with {kubeconfig}, and copy it to {place}",
        "would have agents make the pool 10.0.0.0/8, unless there is one of its kind",
        f"would write {root}/etc/pycni/agent.yaml",
        "nothing was changed",
    ):
        assert f"install.sh: {line}\n" in ran.stderr
    assert "address" not in ran.stderr
    assert not list(root.iterdir())


def test_an_administrators_credentials_make_the_agents(tmp_path: Path) -> None:
    admin = admin_of(tmp_path)

    ran = run(tmp_path, "--datastore", "kubernetes", "--dry-run")

    assert ran.returncode == 0, ran.stderr
    assert (
        f"would apply deploy/crds.yaml, rbac.yaml and admission.yaml with {admin} (" in ran.stderr
    )
    assert "service account pycni-agent" in ran.stderr


@pytest.mark.parametrize(
    ("user", "has_admin", "stays"),
    [
        ("pycni-agent", False, True),
        ("operators-own", False, True),
        ("pycni-agent", True, False),
        ("operators-own", True, True),
    ],
)
def test_an_operators_own_credentials_stay_when_it_is_installed_again(
    tmp_path: Path, user: str, *, has_admin: bool, stays: bool
) -> None:
    config, conflist = installed(
        tmp_path,
        agent=f"{IN_CLUSTER.replace('/etc', f'{tmp_path}/etc')}",
        network='{"nodename": "build", "datastore_type": "kubernetes"}',
    )
    kubeconfig = tmp_path / "etc/pycni/kubeconfig"
    kubeconfig.write_text(KUBECONFIG % user)
    if has_admin:
        admin_of(tmp_path)

    ran = run(tmp_path, "--dry-run")

    assert ran.returncode == 0, ran.stderr
    assert (f"install.sh: {kubeconfig} stays as it is\n" in ran.stderr) == stays
    assert f"install.sh: {config} stays as it is\n" in ran.stderr
    assert f"install.sh: {conflist} stays as it is\n" in ran.stderr


@pytest.mark.parametrize(
    ("agent", "network", "words"),
    [
        (AGENT, NETWORK, ("--datastore", "kubernetes")),
        (
            IN_CLUSTER,
            '{"nodename": "build", "datastore_type": "kubernetes"}',
            ("--datastore", "sqlite", "--node-address", "10.0.0.1/24"),
        ),
    ],
)
def test_the_datastore_is_not_changed_under_pods(
    tmp_path: Path, agent: str, network: str, words: tuple[str, ...]
) -> None:
    config, conflist = installed(tmp_path, agent=agent, network=network)
    admin_of(tmp_path)
    record = tmp_path / "run/pycni/endpoints/one.json"
    record.parent.mkdir(parents=True)
    record.touch()

    refused = run(tmp_path, *words, "--dry-run")
    record.unlink()
    ran = run(tmp_path, *words, "--dry-run")

    assert refused.returncode == 1
    assert "remove them first (kubectl drain), then run this again" in refused.stderr
    assert ran.returncode == 0, ran.stderr
    for path in (config, conflist):
        assert f"would write {path}\n" in ran.stderr


# --- the host's own network managers --------------------------------------------------------------

HANDS_OFF = (
    "etc/NetworkManager/conf.d/pycni.conf",
    "etc/systemd/network/00-pycni.network",
)


@pytest.mark.parametrize(
    ("there", "written"),
    [
        ((), ()),
        (("etc/NetworkManager/NetworkManager.conf",), HANDS_OFF[:1]),
        (("usr/lib/systemd/systemd-networkd",), HANDS_OFF[1:]),
        (("lib/systemd/systemd-networkd", "etc/NetworkManager/NetworkManager.conf"), HANDS_OFF),
    ],
)
def test_network_managers_that_are_there_are_told_to_keep_their_hands_off(
    tmp_path: Path, there: tuple[str, ...], written: tuple[str, ...]
) -> None:
    for name in there:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch(mode=0o755)

    ran = run(tmp_path, "--node-address", "10.0.0.1/24", "--dry-run")

    for name in HANDS_OFF:
        assert (f"would write {tmp_path}/{name}\n" in ran.stderr) == (name in written)


def test_network_managers_have_their_hands_back_after_uninstalling(tmp_path: Path) -> None:
    for name in HANDS_OFF:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    kept = tmp_path / "etc/NetworkManager/conf.d/other.conf"
    kept.touch()

    ran = run(tmp_path, "--uninstall")

    assert ran.returncode == 0, ran.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [kept]


def test_what_stays_in_the_cluster_is_named(tmp_path: Path) -> None:
    config = tmp_path / "etc/pycni/agent.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(IN_CLUSTER, encoding="utf-8")

    ran = run(tmp_path, "--uninstall")

    assert ran.returncode == 0, ran.stderr
    last = ran.stderr.splitlines()[-1]
    for name in (
        "crds.yaml",
        "rbac.yaml",
        "admission.yaml",
        "load-balancer.yaml",
        "bgp-passwords.yaml",
    ):
        assert name in last


def test_what_a_killed_installation_has_half_written_goes_as_well(tmp_path: Path) -> None:
    for name in (
        "etc/pycni/kubeconfig.new.7",
        "etc/pycni/agent.yaml.new.7",
        "etc/cni/net.d/10-pycni.conflist.new.7",
        "opt/cni/bin/pycni.new.7",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    ran = run(tmp_path, "--uninstall")

    assert ran.returncode == 0, ran.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert not (tmp_path / "etc/pycni").exists()


@pytest.mark.parametrize("has_datastore", [True, False])
def test_only_a_datastore_that_is_there_is_said_to_be_kept(
    tmp_path: Path, *, has_datastore: bool
) -> None:
    kept = tmp_path / "var/lib/pycni"
    if has_datastore:
        kept.mkdir(parents=True)

    ran = run(tmp_path, "--uninstall")

    assert ran.returncode == 0, ran.stderr
    ending = f"; the datastore is kept in {kept}" if has_datastore else ""
    assert ran.stderr.endswith(f"install.sh: removed{ending}\n")
