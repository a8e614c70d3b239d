"""A stand-in for the Hugging Face hub on loopback: repositories, commits, trees, files and LFS.

It speaks as much of the hub's HTTP interface as huggingface_hub 2 uses to create a repository,
commit to it, list it and download from it. Repositories in `private` and all writing need the
token.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_secretsecretsecret"
Tree = dict[str, bytes]


@dataclass
class Repository:
    """Commits by their digest, and branches and tags that name one."""

    commits: dict[str, Tree] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def commit(self, tree: Tree, branch: str = "main") -> str:
        content = repr((sorted(tree.items()), len(self.commits))).encode()
        sha = hashlib.sha1(content).hexdigest()
        self.commits[sha] = dict(tree)
        self.names[branch] = sha
        return sha

    def sha(self, revision: str) -> str | None:
        return self.names.get(revision) or (revision if revision in self.commits else None)


@dataclass
class Hub:
    """What the server holds, what it was asked, and how it is told to fail."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    gated: set[str] = field(default_factory=set)
    objects: dict[str, bytes] = field(default_factory=dict)  # of LFS
    requests: list[str] = field(default_factory=list)
    large: int = 10**9  # bytes from which a file goes through LFS
    fail_on: str = ""  # requests whose path has this in it are answered with 500
    corrupt: str = ""  # a file whose bytes are changed on the way out

    def files(self, repository: str, revision: str = "main") -> Tree:
        found = self.repositories[repository]
        return found.commits[str(found.sha(revision))]

    def edit(self, repository: str, **changes: bytes | None) -> None:
        """Commit changes; names are given with __ for dots and ___ for slashes."""
        tree = dict(self.files(repository))
        for name, content in changes.items():
            path = name.replace("___", "/").replace("__", ".")
            if content is None:
                del tree[path]
            else:
                tree[path] = content
        self.repositories[repository].commit(tree)


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Serve a hub on a free port of loopback."""
    hub = Hub()

    class Handler(Answers):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Answers(BaseHTTPRequestHandler):
    """One request. Addresses of data sets begin with `datasets/`, as on the hub."""

    state: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Be quiet."""

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        chunked = "chunked" in (self.headers.get("Transfer-Encoding") or "")
        body = self.chunks() if chunked else self.rfile.read(length)
        path = urlsplit(self.path).path
        self.state.requests.append(f"{self.command} {path}")
        if self.state.fail_on and self.state.fail_on in path:
            return self.send(500, b"broken")
        api = re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)(?:/(\w+)/?(.*))?", path)
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            front = json.loads(body)["content"].split("---\n")[1]
            errors = [] if isinstance(yaml.safe_load(front), dict) else [{"message": "no object"}]
            return self.send_json({"errors": errors, "warnings": []})
        if api:
            kind, name = api[1], api[2]
            repository = name if kind == "model" else f"datasets/{name}"
            return self.api(repository, api[3] or "", unquote(api[4] or ""), body)
        if lfs := re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self.batch(lfs[1], json.loads(body))
        if upload := re.fullmatch(r"/lfs/(\w+)", path):
            if self.command == "PUT":
                self.state.objects[upload[1]] = body
            return self.send(200, b"{}")
        if file := re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.file(file[1], unquote(file[2]), unquote(file[3]))
        return self.send(404, b"no such address")

    def chunks(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline().strip(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_json(self, value: Any) -> None:
        self.send(200, json.dumps(value).encode(), Content_Type="application/json")

    @property
    def known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def found(self, repository: str, revision: str) -> tuple[Repository, str] | None:
        """The repository and the commit; answers with the hub's errors if there is none."""
        there = self.state.repositories.get(repository)
        if repository in self.state.gated:
            self.send(403, b"", X_Error_Code="GatedRepo", X_Error_Message="ask for access")
            return None
        if there is None or (repository in self.state.private and not self.known):
            self.send(404 if self.known else 401, b"", X_Error_Code="RepoNotFound")
            return None
        sha = there.sha(revision)
        if sha is None:
            self.send(404, b"", X_Error_Code="RevisionNotFound")
            return None
        return there, sha

    def create(self, asked: dict[str, Any]) -> None:
        if not self.known:
            return self.send(401, b'{"error": "Invalid username or password."}')
        owner = f"{asked['organization']}/" if asked.get("organization") else ""
        name = f"{owner}{asked['name']}"
        name = f"datasets/{name}" if asked.get("type") == "dataset" else name
        if name in self.state.repositories:
            return self.send(409, json.dumps({"url": f"{self.state.url}/{name}"}).encode())
        made = self.state.repositories[name] = Repository()
        made.commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        if asked.get("private") or asked.get("visibility") == "private":
            self.state.private.add(name)
        return self.send_json({"url": f"{self.state.url}/{name}"})

    def api(self, repository: str, verb: str, rest: str, body: bytes) -> None:
        revision, _, path = rest.partition("/") if verb == "tree" else (rest or "main", "", "")
        found = self.found(repository, revision)
        if found is None:
            return
        there, sha = found
        if self.command == "POST" and not self.known:
            self.send(401, b'{"error": "Invalid username or password."}')
        elif verb in ("", "revision"):
            siblings = [{"rfilename": name} for name in there.commits[sha]]
            plain = repository.removeprefix("datasets/")
            self.send_json({"id": plain, "sha": sha, "siblings": siblings, "private": False})
        elif verb == "tree":
            self.tree(there.commits[sha], path)
        elif verb == "preupload":
            files = json.loads(body)["files"]
            self.send_json(
                {
                    "files": [
                        {
                            "path": f["path"],
                            "uploadMode": "lfs" if f["size"] >= self.state.large else "regular",
                            "shouldIgnore": False,
                        }
                        for f in files
                    ]
                }
            )
        elif verb == "commit":
            self.commit(there, sha, revision, body)

    def tree(self, files: Tree, path: str) -> None:
        start = f"{path}/" if path else ""
        names = [name for name in files if name.startswith(start)]
        if not names:
            return self.send(404, b"", X_Error_Code="EntryNotFound")
        entries: list[dict[str, Any]] = [
            {"type": "file", "path": n, "size": len(files[n]), "oid": etag(files[n])} for n in names
        ]
        folders = {n.rpartition("/")[0] for n in names if "/" in n}
        entries += [{"type": "directory", "path": n, "oid": "0" * 40, "size": 0} for n in folders]
        return self.send_json(entries)

    def commit(self, there: Repository, sha: str, branch: str, body: bytes) -> None:
        tree = dict(there.commits[sha])
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header" and value.get("parentCommit") not in (None, sha):
                return self.send(412, b'{"error": "another commit came first"}')
            if entry["key"] == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                tree[value["path"]] = self.state.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                del tree[value["path"]]
        made = there.commit(tree, branch)
        url = f"{self.state.url}/x/y/commit/{made}"
        return self.send_json({"success": True, "commitOid": made, "commitUrl": url})

    def batch(self, repository: str, asked: dict[str, Any]) -> None:
        if not self.known:
            return self.send(401, b"{}")
        objects = [
            {
                "oid": one["oid"],
                "size": one["size"],
                "actions": {"upload": {"href": f"{self.state.url}/lfs/{one['oid']}"}},
            }
            for one in asked["objects"]
        ]
        return self.send_json({"transfer": "basic", "objects": objects})

    def file(self, repository: str, revision: str, path: str) -> None:
        found = self.found(repository, revision)
        if found is None:
            return None
        there, sha = found
        if path not in there.commits[sha]:
            return self.send(404, b"", X_Error_Code="EntryNotFound")
        content = there.commits[sha][path]
        tag = etag(content)
        if path == self.state.corrupt:
            content = bytes([content[0] ^ 1]) + content[1:]
        start = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
        sent = content[int(start[1]) :] if start else content
        headers = {"X_Repo_Commit": sha, "ETag": f'"{tag}"', "Accept_Ranges": "bytes"}
        if start:
            headers["Content_Range"] = f"bytes {start[1]}-{len(content) - 1}/{len(content)}"
        return self.send(206 if start else 200, sent, **headers)


def etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
