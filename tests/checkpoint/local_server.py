"""An HTTP server on this machine that replaces one of the network in tests."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class LocalServer:
    """Answers at `url`, a port of the system's choice, until `close`; its handlers have it as `owner`."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]):
        bound = type("Handler", (handler,), {"owner": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), bound)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stops answering."""
        self.server.shutdown()
        self.server.server_close()
