"""The control socket: one JSON line asks, one JSON line answers; for `pycnictl`.  Root only.

`{"question": "status"}` changes nothing; `{"wish": "leave"}` does.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pycni.errors import PycniError
from pycni.unix import listen_private, peer_uid

_log = logging.getLogger(__name__)

MAX_LINE = 1 << 16

Answers = Mapping[str, Callable[[], Any]]


class ControlServer:
    """Answers questions and fulfils wishes, each by its name."""

    def __init__(self, path: Path, answers: Answers, wishes: Answers | None = None) -> None:
        self._path = path
        self._known = {"question": answers, "wish": wishes or {}}
        self.refused = 0

    async def run(self) -> None:
        """Serve until cancelled."""
        listener = listen_private(self._path)
        server = await asyncio.start_unix_server(self._serve, sock=listener, limit=MAX_LINE)
        try:
            await server.serve_forever()
        finally:
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            uid = peer_uid(writer.get_extra_info("socket"))
            if uid != 0:
                self.refused += 1
                _log.warning("refused a connection to the control socket", extra={"uid": uid})
                return
            async with asyncio.timeout(5):
                line = await reader.readline()
            writer.write(json.dumps(self._answer(line)).encode() + b"\n")
            await writer.drain()
        except (OSError, TimeoutError, ValueError) as exc:
            _log.info("a control connection failed", extra={"reason": repr(exc)})
        finally:
            writer.close()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            ((kind, name),) = json.loads(line).items()
            return {"answer": self._known[kind][name]()}
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            questions, wishes = (", ".join(names) for names in self._known.values())
            known = f"known questions: {questions}; wishes: {wishes}"
            return {"error": f"cannot answer {line[:80]!r} ({exc!r}); {known}"}
        except PycniError as exc:
            return {"error": str(exc)}
