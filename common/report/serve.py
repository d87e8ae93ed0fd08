"""The page for large sets: Python's own server on the loopback address; pictures are made when they are looked at."""

import base64
import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

from common.report.packed import ENCODING
from common.report.page import Images, page
from common.run.errors import UserError

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")


class ReportServer(ThreadingHTTPServer):
    """Serves one report; keeps no picture in memory."""

    daemon_threads = True

    def __init__(self, data: dict[str, Any], images: Images, port: int) -> None:
        """Binds the port; 0: a free one.

        Raises:
            UserError: the port is in use or not permitted.
        """
        self.html = page(data)
        self.ids = [entry["id"] for entry in data["images"]]
        self.images = images
        self.lock = Lock()  # decoding of one image at a time bounds the memory
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise UserError(f"--port {port}: {error}; give another one, or 0 for any free port") from error

    @property
    def address(self) -> str:
        """The address to open."""
        return f"http://{HOST}:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    server: ReportServer

    def do_GET(self) -> None:
        """``/``: the page; ``/image/NUMBER``: an image's pictures as JSON."""
        if self.headers.get("Host", "").rpartition(":")[0] not in NAMES:  # a page elsewhere that has taken this address
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        if self.path in ("/", "/index.html"):
            self._send(self.server.html, f"text/html; charset={ENCODING}")
            return
        number = self.path.removeprefix("/image/")
        if not (number.isdecimal() and len(number) < 10 and int(number) < len(self.server.ids)):
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            with self.server.lock:
                content = self.server.images.picture(self.server.ids[int(number)])
        except UserError as error:
            content = {"error": str(error)}
        self._send(json.dumps(content, default=_base64).encode("utf-8"), "application/json")

    def _send(self, body: bytes, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing for every request."""


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
