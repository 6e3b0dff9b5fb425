"""/health (JSON) and /metrics (Prometheus) on loopback, in a thread of their own: a stuck loop is seen from outside.

/health answers 200 in NORMAL and NO_CONTROL, 503 otherwise or when the loop has not beaten for `stale_s`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

import msgspec
from prometheus_client import REGISTRY, make_wsgi_app

from ..model.lang import tr
from ..protocols.common.errors import UsageError
from .config import HttpConfig
from .modes import Mode


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    timeout = 10

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a scrape every few seconds is not news."""


class HealthServer:
    """Serves until `close`. `status` returns what /health shows; `beat` is called by the event loop."""

    def __init__(self, config: HttpConfig, status: Callable[[], dict[str, object]], stale_s: float = 15.0) -> None:
        self._status = status
        self._stale_s = stale_s
        self._beaten_s = time.monotonic()
        self._metrics = make_wsgi_app(REGISTRY)
        try:
            self._server = make_server(config.host, config.port, self._app, _Server, _QuietHandler)
        except OSError as error:
            raise UsageError(
                tr(
                    f"http: cannot listen on {config.host}:{config.port} ({error.strerror}); "
                    "choose another http.port, or 0 for none",
                    f"http: 无法监听 {config.host}:{config.port} ({error.strerror}); 请更换 http.port, 或设为 0 关闭",
                )
            ) from error
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="fuhe-http", daemon=True)
        self._thread.start()

    def beat(self) -> None:
        """The event loop is alive."""
        self._beaten_s = time.monotonic()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "/")
        if path == "/metrics":
            return self._metrics(environ, start_response)  # type: ignore[no-any-return]
        if path != "/health":
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"/health or /metrics\n"]
        silent_s = time.monotonic() - self._beaten_s
        body = {**self._status(), "loop_silent_s": round(silent_s, 1)}
        well = silent_s < self._stale_s and body.get("mode") in (Mode.NORMAL.name, Mode.NO_CONTROL.name)
        start_response(
            "200 OK" if well else "503 Service Unavailable", [("Content-Type", "application/json; charset=utf-8")]
        )
        return [msgspec.json.encode(body, enc_hook=str), b"\n"]
