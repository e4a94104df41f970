"""A model hub on this machine, as the client of the Hugging Face hub talks to it."""

import base64
import hashlib
import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.checkpoint.local_server import LocalServer

SHA = "0123456789abcdef0123456789abcdef01234567"


class FakeHub(LocalServer):
    """Serves the files of local folders, by the names of models.

    Attributes:
      models: folder of each model ("org/name").
      gated: models that need a login.
      broken: names of files that the hub fails to send.
      fetched: names of the files that were sent, in order; of a range with its first byte.
      cut: file name -> bytes after which its connection breaks, once.
      uploaded: path -> bytes of what was uploaded, by model; `created` are the requests for new models.
      token: what an upload must send.
    """

    def __init__(self):
        self.models: dict[str, Path] = {}
        self.gated: set[str] = set()
        self.broken: set[str] = set()
        self.fetched: list[tuple[str, int]] = []
        self.cut: dict[str, int] = {}
        self.uploaded: dict[str, dict[str, bytes]] = {}
        self.created: list[dict] = []
        self.token = "secret"
        super().__init__(_Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FakeHub

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.split("/")[1:]]
        api = parts[:2] == ["api", "models"]
        name, rest = "/".join(parts[2:4] if api else parts[:2]), parts[4 if api else 2 :]
        if name in self.owner.gated:
            return self._send(403, b"{}", {"X-Error-Code": "GatedRepo"}, body)
        if api and rest[:1] == ["tree"] and name in self.owner.uploaded:
            files = self.owner.uploaded[name]
            found = [{"type": "file", "path": path, "size": len(files[path]), "oid": SHA} for path in files]
            return self._send(200, json.dumps(found).encode(), {}, body)
        if name not in self.owner.models:
            return self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
        if rest[1:2] and rest[1] not in ("main", SHA):
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body)
        folder = self.owner.models[name]
        if api and rest[:1] == ["tree"]:
            files = [path for path in folder.rglob("*") if path.is_file()]
            found = [
                {
                    "type": "file",
                    "path": path.relative_to(folder).as_posix(),
                    "size": path.stat().st_size,
                    "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
                }
                for path in files
            ]
            return self._send(200, json.dumps(found).encode(), {}, body)
        if api:
            return self._send(200, json.dumps({"id": name, "sha": SHA, "siblings": []}).encode(), {}, body)
        return self._file(folder.joinpath(*rest[2:]), body)

    def do_POST(self):
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = [unquote(part) for part in urlsplit(self.path).path.split("/")[1:]]
        if self.headers.get("Authorization") != f"Bearer {self.owner.token}":
            return self._send(401, b'{"error": "no permission"}', {}, True)
        name = "/".join(parts[2:4])
        if parts[1:] == ["validate-yaml"]:
            return self._json({"warnings": [], "errors": []})
        if parts[1:] == ["repos", "create"]:
            self.owner.created.append(json.loads(sent))
            created = self.owner.created[-1]
            self.owner.uploaded.setdefault(f"{created['organization']}/{created['name']}", {})
            return self._json({"url": f"{self.owner.url}/x/y"})
        if parts[4] == "preupload":
            files = json.loads(sent)["files"]
            one = {"uploadMode": "regular", "shouldIgnore": False}
            return self._json({"files": [{"path": file["path"], **one} for file in files]})
        for line in map(json.loads, sent.splitlines()):
            if line["key"] == "deletedFile":
                del self.owner.uploaded[name][line["value"]["path"]]
            if line["key"] == "file":
                data = base64.b64decode(line["value"]["content"])
                self.owner.uploaded[name][line["value"]["path"]] = data
        url = f"{self.owner.url}/{name}/commit/{SHA}"
        return self._json({"success": True, "commitUrl": url, "commitOid": SHA, "hookOutput": ""})

    def _json(self, value: dict) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"}, True)

    def _file(self, path: Path, body: bool) -> None:
        if body and path.name in self.owner.broken:
            return self._send(500, b"{}", {}, body)
        data = path.read_bytes()
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": SHA}
        start, status = 0, 200
        if wanted := self.headers.get("Range"):
            start, status = int(wanted.removeprefix("bytes=").split("-")[0]), 206
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if body:
            self.owner.fetched.append((path.name, start))
        self._send(status, data[start:], headers, body, self.owner.cut.pop(path.name, None) if body else None)

    def _send(self, status: int, data: bytes, headers: dict, body: bool, cut: int | None = None) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True
