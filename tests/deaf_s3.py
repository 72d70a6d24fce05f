"""A proxy in front of an S3 server that drops the condition of every put, as servers do that never knew of it.

usage: deaf_s3.py ENDPOINT PORT
"""

import http.client
import sys
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "host"}


class Deaf(BaseHTTPRequestHandler):
    """Passes each request on, without `If-None-Match`."""

    protocol_version = "HTTP/1.1"
    endpoint = ""

    def forward(self):
        """One request, one answer."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        dropped = HOP_BY_HOP | {"if-none-match"}
        headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
        headers["Host"] = self.headers.get("Host", self.endpoint)
        connection = http.client.HTTPConnection(self.endpoint, timeout=30)
        connection.request(self.command, self.path, body=body, headers=headers)
        answer = connection.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        connection.close()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward

    def log_message(self, *args):
        """Says nothing."""


if __name__ == "__main__":
    Deaf.endpoint = urllib.parse.urlparse(sys.argv[1]).netloc
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Deaf).serve_forever()
