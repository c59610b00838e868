"""A hub on the loopback that speaks as much of Hugging Face's HTTP interface as `huggingface_hub` asks for.

Repositories of models and datasets with branches, commits (all of one or nothing), small files and large ones (LFS,
kept at an address of their own, as by the hub), a token, private and gated repositories, and faults on order.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

TOKEN = "hf_of_the_tests"
LARGE = ("*.safetensors", "*.mp4", "*.gif", "*.parquet", "*.hdf5")
"""What .gitattributes says of a new repository."""


@dataclass(frozen=True)
class File:
    content: bytes
    large: bool

    @property
    def git(self) -> str:
        """Of what git stores: of a large file that is a pointer."""
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        stored = pointer.encode() if self.large else self.content
        return hashlib.sha1(b"blob %d\0%s" % (len(stored), stored)).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.large else self.git


@dataclass
class Repo:
    private: bool = False
    gated: bool = False
    heads: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, File], message: str = "") -> str:
        sha = hashlib.sha1(repr((branch, len(self.commits), message)).encode()).hexdigest()
        self.commits[sha], self.heads[branch] = files, sha
        self.messages.append(message)
        return sha

    def at(self, revision: str) -> dict[str, File]:
        return self.commits[self.heads.get(revision, revision)]


@dataclass
class Fault:
    """What goes wrong with requests like this: 'PUT /lfs'.

    `how` is a status, or: drop (the connection, before an answer), hang (for two seconds, then drop), half (of the
    answer, then drop), junk (no JSON), flip (a bit of what is sent or stored); or something to be done before it.
    """

    match: str
    how: int | str | Callable[[], object]
    times: int = 1


class Hub:
    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        """By `models/OWNER/NAME` or `datasets/OWNER/NAME`."""
        self.large: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.seen: list[str] = []
        """`METHOD /path` of each request."""
        self.defects: list[str] = []
        """Tracebacks of this file's own."""
        self.lock = threading.Lock()
        self.url = self.cdn = ""

    def add(self, name: str, files: dict[str, bytes], branch: str = "main", **options: Any) -> str:
        """A repository with these files on a branch, by nobody's push; its commit."""
        repo = self.repos.setdefault(name, Repo(**options))
        return repo.commit(branch, {path: File(content, is_large(path)) for path, content in files.items()})

    def fault(self, request: str) -> Any:
        with self.lock:
            self.seen.append(request)
            for fault in self.faults:
                if fault.times and re.match(fault.match, request):
                    fault.times -= 1
                    return fault.how
        return None


def is_large(path: str) -> bool:
    return any(fnmatch(path, pattern) for pattern in LARGE)


@contextmanager
def hub() -> Iterator[Hub]:
    """A running one; requests go to its `url`."""
    state = Hub()
    servers = [_Server(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": state})) for _ in range(2)]
    state.url, state.cdn = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield state
        assert not state.defects, state.defects[0]
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


class _Dropped(Exception):
    """The connection ends here."""


class _Refused(Exception):
    def __init__(self, status: int, code: str, text: str) -> None:
        self.status, self.code, self.text = status, code, text


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_GET

    def _serve(self) -> None:
        self.raw = urlsplit(self.path)
        self.how = self.hub.fault(f"{self.command} {unquote(self.raw.path)}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if callable(self.how):
                self.how()
            if self.how in ("drop", "hang"):
                time.sleep(2 * (self.how == "hang"))
                raise _Dropped
            if isinstance(self.how, int):
                raise _Refused(self.how, "", "as ordered")
            self._answer(body)
        except _Refused as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.text}
            self._json({"error": refusal.text}, refusal.status, headers)
        except (_Dropped, OSError):
            self.close_connection = True
        except Exception:  # noqa: BLE001 (whatever it is, the test is to see it)
            self.hub.defects.append(traceback.format_exc())
            self.close_connection = True

    def _answer(self, body: bytes) -> None:
        if self.how == "junk":
            self._send(200, b"<html>a captive portal</html>", {"Content-Type": "text/html"})
            return
        for pattern, act in ROUTES:
            if found := re.fullmatch(pattern, f"{self.command} {self.raw.path}"):
                act(self, body, *(unquote(group or "") for group in found.groups()))
                return
        self._send(200 if self.raw.path == "/" else 404)

    def _send(self, status: int, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.how == "half":
            self.wfile.write(content[: len(content) // 2])
            raise _Dropped
        self.wfile.write(_flipped(content) if self.how == "flip" else content)

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repo(self, name: str, revision: str | None = None, *, write: bool = False, files: bool = False) -> Repo:
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not self._known()):
            raise _Refused(404 if self._known() else 401, "RepoNotFound", "Repository not found")
        if write and not self._known():
            raise _Refused(401, "", "Invalid username or password.")
        if files and repo.gated and not self._known():
            raise _Refused(401, "GatedRepo", "Access to this repository is restricted")
        if revision is not None and revision not in {*repo.heads, *repo.commits}:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        if not self._known():
            raise _Refused(401, "", "Invalid username or password.")
        owner = asked["organization"] or "tester"
        if owner == "somebody-else":
            raise _Refused(403, "", "You don't have the rights to create a model under the namespace")
        kind = asked.get("type", "model")
        name, prefix = f"{owner}/{asked['name']}", "" if kind == "model" else f"{kind}s/"
        new = f"{kind}s/{name}" not in self.hub.repos
        if new:
            private = asked.get("visibility") == "private"
            self.hub.add(f"{kind}s/{name}", {".gitattributes": b"*.safetensors filter=lfs\n"}, private=private)
        self._json({"url": f"{self.hub.url}/{prefix}{name}"}, 200 if new else 409)

    def check_card(self, body: bytes) -> None:
        head = re.match(r"---\n(.*?)\n---", json.loads(body)["content"], re.DOTALL)
        fine = head is not None and isinstance(yaml.safe_load(head[1]), dict)
        self._json({"errors": [] if fine else [{"message": "no metadata"}], "warnings": []}, 200 if fine else 400)

    def info(self, _: bytes, name: str, revision: str = "main") -> None:
        repo = self._repo(name, revision)
        sha = repo.heads.get(revision, revision)
        files = [{"rfilename": path} for path in sorted(repo.at(sha))]
        ident = name.partition("/")[2]
        self._json({"id": ident, "sha": sha, "private": repo.private, "gated": repo.gated, "siblings": files})

    def tree(self, _: bytes, name: str, revision: str) -> None:
        rows: list[dict[str, Any]] = []
        for path, file in sorted(self._repo(name, revision).at(revision).items()):
            row = {"type": "file", "path": path, "size": len(file.content), "oid": file.git}
            large = {"oid": file.sha256, "size": len(file.content), "pointerSize": 130}
            rows.append({**row, "lfs": large} if file.large else row)
        self._json([{"type": "directory", "path": "a-folder", "oid": "0" * 40, "size": 0}, *rows])

    def datasets(self, _: bytes) -> None:
        asked = {key: values[0] for key, values in parse_qs(self.raw.query).items()}
        names = [name.partition("/")[2] for name in self.hub.repos if name.startswith("datasets/")]
        found = [name for name in names if name.startswith(asked.get("author", "")) and asked.get("search", "") in name]
        self._json([{"id": name} for name in found])

    def branch(self, _: bytes, name: str, branch: str) -> None:
        repo = self._repo(name, write=True)
        if branch in repo.heads:
            raise _Refused(409, "", "Reference already exists")
        repo.heads[branch] = repo.heads["main"]
        self._json({})

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        files = self._repo(name, revision, write=True).at(revision)
        ignored = files.get(".gitignore", File(b"", False)).content.decode().split()
        answer = []
        for asked in json.loads(body)["files"]:
            path = asked["path"]
            mode = "lfs" if is_large(path) else "regular"
            ignore = any(fnmatch(path, pattern) for pattern in ignored)
            here = files[path].etag if path in files else None
            answer.append({"path": path, "uploadMode": mode, "shouldIgnore": ignore, "oid": here})
        self._json({"files": answer})

    def batch(self, body: bytes, prefix: str, name: str) -> None:
        self._repo(f"{prefix or 'models/'}{name}", write=True)
        rows = []
        for asked in json.loads(body)["objects"]:
            upload = {"upload": {"href": f"{self.hub.cdn}/lfs/{asked['oid']}"}}
            rows.append({**asked, **({} if asked["oid"] in self.hub.large else {"actions": upload})})
        self._json({"transfer": "basic", "objects": rows})

    def put(self, body: bytes, oid: str) -> None:
        assert "Authorization" not in self.headers, "storage is somebody else's"
        self.hub.large[oid] = _flipped(body) if self.how == "flip" else body
        self._send(200)

    def commit(self, body: bytes, name: str, branch: str) -> None:
        repo = self._repo(name, branch, write=True)
        rows = [json.loads(line) for line in body.splitlines()]
        head = rows[0]["value"]
        with self.hub.lock:
            if head.get("parentCommit") not in (None, repo.heads[branch]):
                raise _Refused(412, "", "A commit has happened since. Please refresh and try again.")
            files = dict(repo.at(branch))
            for row in rows[1:]:
                value = row["value"]
                if row["key"] == "file":
                    files[value["path"]] = File(base64.b64decode(value["content"]), large=False)
                elif row["key"] == "lfsFile":
                    if value["oid"] not in self.hub.large:
                        raise _Refused(400, "", f"{value['path']}: its content was not uploaded")
                    files[value["path"]] = File(self.hub.large[value["oid"]], large=True)
                else:
                    del files[value["path"]]
            sha = repo.commit(branch, files, head["summary"])
        self._json({"commitUrl": f"{self.hub.url}/{name.partition('/')[2]}/commit/{sha}", "commitOid": sha})

    def resolve(self, _: bytes, prefix: str, name: str, revision: str, path: str) -> None:
        repo = self._repo(f"{prefix or 'models/'}{name}", revision, files=True)
        headers = {"X-Repo-Commit": repo.heads.get(revision, revision)}
        file = repo.at(revision).get(path)
        if file is None:
            self._json({"error": "Entry not found"}, 404, {**headers, "X-Error-Code": "EntryNotFound"})
        elif file.large:
            self.hub.large[file.sha256] = file.content
            linked = {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content))}
            self._send(302, headers={**headers, **linked, "Location": f"{self.hub.cdn}/lfs/{file.sha256}"})
        else:
            self._ranged(file.content, {**headers, "ETag": f'"{file.git}"'})

    def get(self, _: bytes, oid: str) -> None:
        assert "Authorization" not in self.headers, "storage is somebody else's"
        self._ranged(self.hub.large[oid], {"ETag": f'"{oid}"'})

    def _ranged(self, content: bytes, headers: dict[str, str]) -> None:
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            first = int(asked[1])
            span = f"bytes {first}-{len(content) - 1}/{len(content)}"
            self._send(206, content[first:], {**headers, "Content-Range": span})
        else:
            self._send(200, content, {**headers, "Accept-Ranges": "bytes"})


def _flipped(content: bytes) -> bytes:
    return bytes([content[0] ^ 1]) + content[1:] if content else content


_REPO = r"((?:models|datasets)/[^/]+/[^/]+)"
_AT = r"/(datasets/)?([^/]+/[^/]+)"
ROUTES = [
    ("POST /api/repos/create", _Handler.create),
    ("POST /api/validate-yaml", _Handler.check_card),
    ("GET /api/datasets", _Handler.datasets),
    (rf"GET /api/{_REPO}", _Handler.info),
    (rf"GET /api/{_REPO}/revision/([^/]+)", _Handler.info),
    (rf"GET /api/{_REPO}/tree/([^/]+)", _Handler.tree),
    (rf"POST /api/{_REPO}/branch/([^/]+)", _Handler.branch),
    (rf"POST /api/{_REPO}/preupload/([^/]+)", _Handler.preupload),
    (rf"POST /api/{_REPO}/commit/([^/]+)", _Handler.commit),
    (rf"POST {_AT}\.git/info/lfs/objects/batch", _Handler.batch),
    (rf"(?:GET|HEAD) {_AT}/resolve/([^/]+)/(.+)", _Handler.resolve),
    (r"PUT /lfs/(\w+)", _Handler.put),
    (r"(?:GET|HEAD) /lfs/(\w+)", _Handler.get),
]
