"""A bucket in memory behind Google Cloud Storage's JSON API: as much of it as gcsfs, google-cloud-storage and
TensorStore use (objects, ranges, listing, uploads of three kinds, rewriting, batches of deletions)."""

import email
import json
import re
import threading
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.checkpoint.local_server import LocalServer

OBJECT = re.compile(r"/(?:download/)?storage/v1/b/([^/]+)/o/([^/]+)")


class FakeGCS(LocalServer):
    """`objects` by name; `requests` is a log of (method, path, bytes answered); port is chosen by the system.

    Attributes:
      full: when set, uploads of more bytes in all are refused, as by a quota.
    """

    def __init__(self, bucket: str = "bucket"):
        self.bucket, self.objects, self.generation = bucket, {}, 0
        self.uploads: dict[str, tuple[str, bytearray]] = {}
        self.requests: list[tuple[str, str, int]] = []
        self.full: int | None = None
        self.lock = threading.RLock()
        super().__init__(_Handler)

    def put(self, name: str, data: bytes) -> dict:
        """Stores an object; returns its description."""
        self.generation += 1
        self.objects[name] = (bytes(data), self.generation)
        return self.describe(name)

    def describe(self, name: str) -> dict:
        """What the API says of an object."""
        data, generation = self.objects[name]
        return {
            "kind": "storage#object",
            "bucket": self.bucket,
            "name": name,
            "size": str(len(data)),
            "generation": str(generation),
            "metageneration": "1",
            "updated": "2026-01-01T00:00:00Z",
            "timeCreated": "2026-01-01T00:00:00Z",
        }

    def stored(self) -> int:
        """Bytes of all objects."""
        return sum(len(data) for data, _ in self.objects.values())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # a response in one packet: without it each waits for the reader's late acknowledgement
    owner: FakeGCS

    def log_message(self, *_):
        pass

    def handle_any(self):
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        body = self._body()
        with self.owner.lock:
            status, headers, answer = self._answer(url.path, query, body)
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        data = b"" if status in (204, 304) else data
        self.owner.requests.append((self.command, self.path, len(data)))
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        try:
            self.wfile.write(data)
            self.wfile.flush()
        except ConnectionError:  # a reader that has enough
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_DELETE = handle_any

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, path: str, query: dict, body: bytes) -> tuple:
        gcs = self.owner
        if path.startswith("/batch/"):
            return self._batch(body)
        if path.startswith("/upload/"):
            return self._upload(query, body)
        if "/rewriteTo/" in path or "/moveTo/" in path:
            source, target = (unquote(part) for part in re.findall(r"/o/([^/]+)", path))
            if source not in gcs.objects:
                return 404, {}, {"error": {"code": 404, "message": source}}
            resource = gcs.put(target, gcs.objects[source][0])
            if "/moveTo/" in path:
                del gcs.objects[source]
                return 200, {}, resource
            return 200, {}, {"done": True, "resource": resource}
        if match := OBJECT.fullmatch(path):
            return self._object(unquote(match[2]), query)
        if re.fullmatch(r"/storage/v1/b/[^/]+/o/?", path):
            return 200, {}, self._list(query)
        if path.rstrip("/") == f"/storage/v1/b/{gcs.bucket}":
            return 200, {}, {"kind": "storage#bucket", "name": gcs.bucket, "id": gcs.bucket}
        return 404, {}, {"error": {"code": 404, "message": path}}

    def _object(self, name: str, query: dict) -> tuple:
        gcs = self.owner
        if refused := self._precondition(name, query):
            return refused, {}, {}
        if name not in gcs.objects:
            return 404, {}, {"error": {"code": 404, "message": name}}
        if self.command == "DELETE":
            del gcs.objects[name]
            return 204, {}, b""
        if query.get("alt") != "media":
            return 200, {}, gcs.describe(name)
        data, generation = gcs.objects[name]
        headers = {"x-goog-generation": str(generation), "Content-Type": "application/octet-stream"}
        if match := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
            begin = int(match[1]) if match[1] else max(0, len(data) - int(match[2]))
            end = min(len(data), int(match[2]) + 1) if match[1] and match[2] else len(data)
            if begin >= len(data):
                return 416, {}, {}
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(data)}"
            return 206, headers, data[begin:end]
        return 200, headers, data

    def _precondition(self, name: str, query: dict) -> int | None:
        generation = str(self.owner.objects[name][1]) if name in self.owner.objects else "0"
        if query.get("ifGenerationMatch", generation) != generation:
            return 412
        return 304 if query.get("ifGenerationNotMatch") == generation and generation != "0" else None

    def _list(self, query: dict) -> dict:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        items, prefixes = [], set()
        for name in sorted(self.owner.objects):
            after = name >= query.get("startOffset", "") and name < query.get("endOffset", "\U0010ffff")
            if not name.startswith(prefix) or not after:
                continue
            head, cut, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
            if cut:
                prefixes.add(prefix + head + cut)
            else:
                items.append(self.owner.describe(name))
        return {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)}

    def _upload(self, query: dict, body: bytes) -> tuple:
        gcs = self.owner
        if gcs.full is not None and gcs.stored() + len(body) > gcs.full:
            return 403, {}, {"error": {"code": 403, "message": "the bucket is over its quota"}}
        if key := query.get("upload_id"):
            name, data = gcs.uploads[key]
            data += body
            if self.headers["Content-Range"].endswith("/*"):
                return 308, {"Range": f"bytes=0-{len(data) - 1}"}, b""
            return 200, {}, gcs.put(name, data)
        if query["uploadType"] == "resumable":
            key, name = str(len(gcs.uploads)), query.get("name") or json.loads(body)["name"]
            gcs.uploads[key] = name, bytearray()
            where = f"{gcs.url}/upload/storage/v1/b/{gcs.bucket}/o?upload_id={key}&name={quote(name, '')}"
            return 200, {"Location": where}, {}
        if query["uploadType"] == "multipart":
            edge = body.split(b"\n", 1)[0].strip()
            description, rest = body.split(edge, 2)[1:]
            content = rest.rsplit(edge, 1)[0]
            name = json.loads(re.split(rb"\r?\n\r?\n", description, maxsplit=1)[1])["name"]
            body = re.sub(rb"\r?\n$", b"", re.split(rb"\r?\n\r?\n", content, maxsplit=1)[1])
            query = {**query, "name": name}
        if refused := self._precondition(query["name"], query):
            return refused, {}, {}
        return 200, {}, gcs.put(query["name"], body)

    def _batch(self, body: bytes) -> tuple:
        content_type = self.headers["Content-Type"]
        message = email.message_from_bytes(b"Content-Type: " + content_type.encode() + b"\n\n" + body)
        parts = []
        for part in message.get_payload():
            path = part.get_payload().split()[1]
            name = unquote(OBJECT.match(urlsplit(path).path)[2])
            status = 204 if self.owner.objects.pop(name, None) else 404
            parts.append(f"--edge\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 {status} x\r\n\r\n")
        return 200, {"Content-Type": "multipart/mixed; boundary=edge"}, "".join([*parts, "--edge--"]).encode()
