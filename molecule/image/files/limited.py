"""A registry that has had enough of its clients: limited.py ADDRESS PORT. Every manifest and blob is HTTP 429."""

from __future__ import annotations

import http.server
import sys


class Limited(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/v2/" else 429)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET


if __name__ == "__main__":
    http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Limited).serve_forever()
