"""A server that takes notices: it checks who sent one, and reads each once.

The standard library is enough; the scheme is that of Standard Webhooks.
"""

import base64
import hmac
import json
import os
from datetime import UTC, datetime
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer

SECRET = os.environ.get("LOW_BALANCE_SECRET", "")
KEY = base64.b64decode(SECRET.removeprefix("whsec_"))
seen: set[str] = set()  # a server that restarts keeps them somewhere else


def is_genuine(headers: Message, body: bytes) -> bool:
    at = headers.get("webhook-timestamp", "0")
    signed = f"{headers.get('webhook-id')}.{at}.".encode() + body
    expected = b"v1," + base64.b64encode(hmac.digest(KEY, signed, "sha256"))
    given = headers.get("webhook-signature", "").encode().split()
    fresh = abs(datetime.now(UTC).timestamp() - int(at)) < 300
    return fresh and any(hmac.compare_digest(expected, each) for each in given)


class Notices(BaseHTTPRequestHandler):
    """Answers 204 to what is genuine, the second time too, and 403 to the rest."""

    def do_POST(self) -> None:
        """Take a notice."""
        body = self.rfile.read(int(self.headers["content-length"]))
        genuine = is_genuine(self.headers, body)
        if genuine and self.headers["webhook-id"] not in seen:
            data = json.loads(body)["data"]
            print(f"{data['name']} has {data['available']} {data['currency']} left", flush=True)
            seen.add(self.headers["webhook-id"])
        self.send_response(204 if genuine else 403)
        self.end_headers()


if SECRET:
    server = HTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8080"))), Notices)
    print(f"taking notices at http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()
else:
    print("export LOW_BALANCE_SECRET, the one that the gateway has, and start this again")
