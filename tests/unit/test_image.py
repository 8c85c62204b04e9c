"""What the container image is made of, as far as it can be told without making it."""

import re
from pathlib import Path

import yaml

CLONE = Path(__file__).resolve().parents[2]
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", re.MULTILINE)


def pins(lock: str) -> dict[str, str]:
    return dict(PIN.findall((CLONE / "requirements" / lock).read_text(encoding="utf-8")))


def test_the_image_holds_the_versions_that_the_tests_ran_with() -> None:
    tested = pins("dev.lock")

    assert pins("cluster.lock").items() <= tested.items()
    assert pins("runtime.lock").items() <= pins("cluster.lock").items()
    assert "kubernetes" in pins("cluster.lock")


def test_the_daemonset_runs_as_the_service_account_that_has_the_rights() -> None:
    documents = [
        document
        for name in ("pycni.yaml", "rbac.yaml")
        for document in yaml.safe_load_all((CLONE / "deploy" / name).read_text(encoding="utf-8"))
    ]
    (daemonset,) = (one for one in documents if one["kind"] == "DaemonSet")
    (account,) = (one for one in documents if one["kind"] == "ServiceAccount")

    used = daemonset["spec"]["template"]["spec"]["serviceAccountName"]
    assert (daemonset["metadata"]["namespace"], used) == (
        account["metadata"]["namespace"],
        account["metadata"]["name"],
    )
