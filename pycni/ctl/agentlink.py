"""Ask this node's agent over its control socket, or have it fulfil a wish."""

import json
import socket
from pathlib import Path
from typing import Any

from pycni.errors import InvalidInput, TryAgain

TIMEOUT_S = 10.0


def ask(run_dir: Path, question: str) -> dict[str, Any]:
    """Return the agent's answer to one question; without an agent, say what to do."""
    return _talk(run_dir, {"question": question})


def wish(run_dir: Path, name: str) -> dict[str, Any]:
    """Have the agent do something; return how things stand then."""
    return _talk(run_dir, {"wish": name})


def _talk(run_dir: Path, words: dict[str, str]) -> dict[str, Any]:
    path = run_dir / "control.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.settimeout(TIMEOUT_S)
        try:
            agent.connect(str(path))
            agent.sendall(json.dumps(words).encode() + b"\n")
            line = agent.makefile("rb").readline()
        except PermissionError as exc:
            raise InvalidInput(f"only root may talk to the agent at {path}: use sudo") from exc
        except TimeoutError as exc:
            raise TryAgain(f"the agent at {path} gave no answer in {TIMEOUT_S:g} s") from exc
        except OSError as exc:
            raise TryAgain(
                f"no agent answers at {path}: start pycni-agent, or say --run-dir"
            ) from exc
    if not line:
        raise TryAgain(f"the agent at {path} closed the connection: are you root?")
    try:
        document = json.loads(line)
        if "error" in document:
            raise InvalidInput(str(document["error"]))
        answer: dict[str, Any] = document["answer"]
    except (ValueError, TypeError, KeyError) as exc:
        raise TryAgain(
            f"what answers at {path} is no agent of this version: see --run-dir, or restart"
            " pycni-agent"
        ) from exc
    return answer
