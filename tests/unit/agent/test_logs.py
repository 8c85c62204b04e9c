"""What the agent writes: logs as JSON lines, and its state to systemd."""

import io
import json
import logging
import socket
from pathlib import Path

import pytest

from pycni.agent.notify import notify
from pycni.logs import JsonFormatter, configure_logging


def test_record_becomes_one_json_line() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.Logger("pycni.test")  # noqa: LOG001  # nobody else's handlers
    logger.addHandler(handler)

    logger.warning("trouble with %s", "x", extra={"part": "bgp", "count": 2})
    try:
        raise ValueError("no\nluck")
    except ValueError:
        logger.exception("failed")

    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["level"] == "warning"
    assert first["message"] == "trouble with x"
    assert (first["part"], first["count"]) == ("bgp", 2)
    assert first["time"].endswith("Z")
    assert "no\nluck" in second["exception"]


def test_all_logs_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    root.handlers = []
    try:
        configure_logging("info")
        logging.getLogger("pycni.somewhere").info("said", extra={"node": "a"})
    finally:
        root.handlers, root.level = handlers, level

    assert json.loads(capsys.readouterr().err)["node"] == "a"


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_systemd_hears_of_the_state(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    name = str(tmp_path / "notify") if kind == "path" else f"@pycni-test-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name if kind == "path" else "\0" + name[1:])
        systemd.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)

        notify("READY=1")

        assert systemd.recv(100) == b"READY=1"


def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify("READY=1")
