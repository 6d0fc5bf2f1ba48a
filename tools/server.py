"""A server of a folder on this machine, for the browsers of tests, of the PDF and of the measurement of speed."""

from __future__ import annotations

import contextlib
import functools
import gzip
import http.server
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# What hosts of static pages compress.
TEXT = {".html", ".css", ".js", ".json", ".svg", ".txt", ".xml", ".map"}


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a log line each."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class GzipHandler(QuietHandler):
    """Serves text compressed, as hosts of static pages do."""

    def send_head(self) -> Any:
        """The headers, and what to send after them."""
        path = Path(self.translate_path(self.path))
        path = path / "index.html" if path.is_dir() else path
        if path.suffix not in TEXT or not path.is_file():
            return super().send_head()
        body = compressed(path)
        self.send_response(http.HTTPStatus.OK)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return io.BytesIO(body)


@functools.cache
def compressed(path: Path) -> bytes:
    """A file as it travels."""
    return gzip.compress(path.read_bytes(), mtime=0)


def travelling(path: Path) -> int:
    """The bytes of a file as it travels: text compressed, the rest as it is."""
    return len(compressed(path)) if path.suffix in TEXT else path.stat().st_size


@contextlib.contextmanager
def serving(folder: Path, handler: type[QuietHandler] = QuietHandler) -> Iterator[str]:
    """Serve a folder on this machine; gives the address, with a slash at its end."""
    made = functools.partial(handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), made) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
