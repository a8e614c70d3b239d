"""A web server with a latency, like a remote one.

Run `python -m tendril.bench.slow_server FOLDER SECONDS`.
"""

import re
import sys
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class LateHandler(BaseHTTPRequestHandler):
    """Serves files and parts of files (GET and HEAD, one Range), each answer after a delay."""

    protocol_version = "HTTP/1.1"  # keeps connections open
    disable_nagle_algorithm = True
    wbufsize = -1  # sends an answer in one piece

    def __init__(self, folder: Path, seconds: float, *args: Any) -> None:
        self._folder, self._seconds = folder, seconds
        super().__init__(*args)

    def do_GET(self) -> None:
        """Answer with a file, or with the part that the header Range names."""
        time.sleep(self._seconds)
        file = self._folder / self.path.lstrip("/")
        if ".." in file.parts or not file.is_file():
            self._answer(404, b"")
            return
        size = file.stat().st_size
        part = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if part is None:
            self._answer(200, file.read_bytes())
            return
        first, last = part.groups()
        start = int(first) if first else max(0, size - int(last))
        end = min(size, int(last) + 1) if first and last else size
        if start >= size:
            self._answer(416, b"", f"bytes */{size}")
            return
        with file.open("rb") as opened:
            opened.seek(start)
            content = opened.read(end - start)
        self._answer(206, content, f"bytes {start}-{end - 1}/{size}")

    do_HEAD = do_GET

    def _answer(self, status: int, content: bytes, part: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Accept-Ranges", "bytes")
        if part:
            self.send_header("Content-Range", part)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)
        self.wfile.flush()

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


class LateServer(ThreadingHTTPServer):
    """Accepts many connections at once."""

    request_queue_size = 128
    daemon_threads = True


def main() -> None:
    """Serve a folder on the loopback interface; the first line of stdout is the URL."""
    handler = partial(LateHandler, Path(sys.argv[1]), float(sys.argv[2]))
    with LateServer(("127.0.0.1", 0), handler) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
