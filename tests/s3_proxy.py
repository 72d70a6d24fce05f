"""A proxy in front of an S3 server that makes it a worse one.

usage: s3_proxy.py deaf|slow ENDPOINT PORT

deaf: drops the condition of every put, as servers do that never knew of it. slow: lets every request wait 200 ms.
"""

import http.client
import sys
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "host"}


class Proxy(BaseHTTPRequestHandler):
    """Passes each request on, after a wait and without some headers."""

    protocol_version = "HTTP/1.1"
    endpoint = ""
    wait = 0.0
    not_passed = HOP_BY_HOP

    def forward(self):
        """One request, one answer."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        time.sleep(self.wait)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in self.not_passed}
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
    how, endpoint, port = sys.argv[1:]
    Proxy.endpoint = urllib.parse.urlparse(endpoint).netloc
    if how == "deaf":
        Proxy.not_passed = HOP_BY_HOP | {"if-none-match"}
    else:
        Proxy.wait = 0.2
    ThreadingHTTPServer(("127.0.0.1", int(port)), Proxy).serve_forever()
