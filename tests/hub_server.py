"""A small server that speaks as much of the Hugging Face Hub's HTTP as its client needs, on 127.0.0.1.

Repositories live in memory. Large files are served through a redirect to another path, as the Hub's storage is.
Faults are switched on by attributes: ``status`` answers everything with an error, ``cut_after`` ends each body early.
"""

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from tests.hub_upload import LARGE, UPLOAD_ROUTES, Uploads


@dataclass
class Repo:
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)  # commit hash to files, oldest first
    branches: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False


class HubServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.moved: dict[str, str] = {}  # old name to new name of a repository
        self.log: list[tuple[str, str]] = []  # (method, path) of every request, to tell what was asked
        self.headers_seen: list[dict[str, str]] = []
        self.token = "hf_right"
        self.status = None  # answer every request with this status
        self.extra_headers: dict[str, str] = {}  # sent with that status
        self.cut_after = None  # close the connection after so many bytes of a large file's body
        self.cuts_left = None  # how many bodies are cut; None for all
        self.stall = None  # seconds to wait before any answer
        self.uploaded: dict[str, bytes] = {}  # large files that arrived, by hash
        self.refuse_storage = False  # let no large file arrive

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def storage_url(self):
        """The same server under another name, for the client treats storage of another host as the Hub's."""
        return self.url.replace("127.0.0.1", "localhost")

    def add(self, repo_id, files, *, commit=None, branch="main", **flags):
        """Put a commit with these files on a branch and return its hash."""
        repo = self.repos.setdefault(repo_id, Repo())
        for name, value in flags.items():
            setattr(repo, name, value)
        digest = hashlib.sha1(repr((repo_id, len(repo.commits), sorted(files))).encode()).hexdigest()
        commit = commit or digest
        repo.commits[commit] = dict(files)
        repo.branches[branch] = commit
        return commit

    def handle_error(self, request, client_address):
        """A client that hangs up is part of what is tested."""


class Handler(Uploads, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def do_HEAD(self):
        self._dispatch()

    def do_GET(self):
        self._dispatch()

    def do_POST(self):
        self._dispatch()

    def do_PUT(self):
        self._dispatch()

    def _dispatch(self):
        path = unquote(urlsplit(self.path).path)
        self.server.log.append((self.command, path))
        self.server.headers_seen.append({key.lower(): value for key, value in self.headers.items()})
        if self.server.stall:
            threading.Event().wait(self.server.stall)
        if self.server.status:
            self._answer(self.server.status, headers=self.server.extra_headers)
            return
        for method, pattern, name in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method.split():
                getattr(self, name)(**match.groupdict())
                return
        self._answer(404)

    # --- routes ---

    def resolve(self, repo_id, revision, file):
        if repo_id in self.server.moved:
            target = f"/{self.server.moved[repo_id]}/resolve/{revision}/{file}"
            self._answer(307, headers={"Location": target})
            return
        found = self._find(repo_id, revision)
        if found is None:
            return
        commit, files = found
        if file not in files:
            self._answer(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        body = files[file]
        if file.endswith(LARGE):
            digest = hashlib.sha256(body).hexdigest()
            self._answer(
                302,
                headers={
                    "Location": f"{self.server.storage_url}/storage/{digest}",
                    "X-Repo-Commit": commit,
                    "X-Linked-Size": str(len(body)),
                    "X-Linked-Etag": f'"{digest}"',
                },
            )
            return
        blob = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
        self._answer(200, body, {"X-Repo-Commit": commit, "ETag": f'"{blob}"'})

    def storage(self, digest):
        bodies = (
            body for repo in self.server.repos.values() for files in repo.commits.values() for body in files.values()
        )
        body = next((body for body in bodies if hashlib.sha256(body).hexdigest() == digest), None)
        if body is None:
            self._answer(404)
            return
        first = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(first.group(1)) if first else 0
        headers = {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if first:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self._answer(206 if first else 200, body[start:], headers, may_cut=True)

    def commits(self, repo_id, revision):
        found = self._find(repo_id, revision)
        if found is None:
            return
        history = reversed(self.server.repos[repo_id].commits)
        rows = [
            {"id": commit, "title": "change", "message": "", "authors": [], "date": "2024-01-01T00:00:00.000Z"}
            for commit in history
        ]
        self._answer(200, json.dumps(rows).encode(), {"Content-Type": "application/json"})

    # --- what they share ---

    def _find(self, repo_id, revision):
        """Commit and files, or None after an error is answered."""
        repo = self.server.repos.get(repo_id)
        allowed = self.headers.get("Authorization") == f"Bearer {self.server.token}"
        if repo is None or (repo.private and not allowed):
            # the Hub does not tell strangers which of the two it is
            self._answer(404 if allowed else 401, headers={"X-Error-Code": "RepoNotFound"})
            return None
        if repo.gated and not allowed:
            self._answer(401, headers={"X-Error-Code": "GatedRepo"})
            return None
        commit = repo.branches.get(revision, revision)
        if commit not in repo.commits:
            self._answer(404, headers={"X-Error-Code": "RevisionNotFound"})
            return None
        return commit, repo.commits[commit]

    def _answer(self, status, body=b"", headers=None, *, may_cut=False):
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if may_cut and self.server.cut_after is not None and self.server.cuts_left != 0:
            if self.server.cuts_left is not None:
                self.server.cuts_left -= 1
            self.wfile.write(body[: self.server.cut_after])
            self.close_connection = True
            return
        self.wfile.write(body)

    def log_message(self, *args):
        """Stay silent."""


NAME = r"(?P<repo_id>[\w.-]+/[\w.-]+)"
ROUTES = [
    ("HEAD GET", rf"/{NAME}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", "resolve"),
    ("HEAD GET", r"/storage/(?P<digest>\w+)", "storage"),
    ("GET", rf"/api/models/{NAME}/commits/(?P<revision>[^/]+)", "commits"),
    *UPLOAD_ROUTES,
]


@contextmanager
def serve():
    """A server that runs within the ``with``."""
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
