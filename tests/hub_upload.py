"""The upload half of the Hub's HTTP: create, preupload, the large files' batch and storage, verify, commit.

Written against what huggingface_hub's client sends. Nothing that the client sent is believed: sizes and hashes are
checked here, so that a commit whose large file never arrived is refused, as the Hub refuses it.
"""

import base64
import hashlib
import json

LARGE = (".safetensors", ".bin", ".pth", ".pkl")  # what the Hub keeps outside of git


class Uploads:
    """Routes of the server's handler that change repositories; every one wants the token."""

    def create_repo(self):
        if not self._may_write():
            return
        asked = json.loads(self._body())
        repo_id = f"{asked['organization']}/{asked['name']}"
        if repo_id in self.server.repos:
            self._say(409, {"error": "You already created this model repo", "url": f"{self.server.url}/{repo_id}"})
            return
        self.server.add(repo_id, {".gitattributes": b""}, private=asked.get("visibility") == "private")
        self._say(200, {"url": f"{self.server.url}/{repo_id}", "name": repo_id})

    def preupload(self, repo_id, revision):
        if not self._may_write() or self._find(repo_id, revision) is None:
            return
        files = json.loads(self._body())["files"]
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in files
        ]
        self._say(200, {"files": modes})

    def lfs_batch(self, repo_id):
        if not self._may_write():
            return
        objects = json.loads(self._body())["objects"]
        rows = [
            {
                "oid": wanted["oid"],
                "size": wanted["size"],
                "actions": {
                    "upload": {"href": f"{self.server.storage_url}/storage/{wanted['oid']}"},
                    "verify": {"href": f"{self.server.url}/{repo_id}/verify"},
                },
            }
            for wanted in objects
        ]
        self._say(200, {"transfer": "basic", "objects": rows})

    def put_storage(self, digest):
        body = self._body()
        if self.server.refuse_storage or hashlib.sha256(body).hexdigest() != digest:
            self._answer(400)
            return
        self.server.uploaded[digest] = body
        self._answer(200)

    def verify_upload(self, repo_id):
        asked = json.loads(self._body())
        arrived = self.server.uploaded.get(asked["oid"])
        self._say(200 if arrived is not None and len(arrived) == asked["size"] else 404, {})

    def commit(self, repo_id, revision):
        if not self._may_write():
            return
        found = self._find(repo_id, revision)
        if found is None:
            return
        files = dict(found[1])
        for line in self._body().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                if value["oid"] not in self.server.uploaded:
                    self._say(400, {"error": f"LFS pointer points to a file that does not exist: {value['path']}"})
                    return
                files[value["path"]] = self.server.uploaded[value["oid"]]
            elif entry["key"] == "deletedFile":
                files.pop(value["path"], None)
        commit = self.server.add(repo_id, files, branch=revision)
        self._say(
            200, {"success": True, "commitOid": commit, "commitUrl": f"{self.server.url}/{repo_id}/commit/{commit}"}
        )

    def model_info(self, repo_id, revision="main"):
        found = self._find(repo_id, revision)
        if found is None:
            return
        commit, files = found
        siblings = [{"rfilename": name} for name in files]
        self._say(200, {"id": repo_id, "modelId": repo_id, "sha": commit, "siblings": siblings, "tags": []})

    def validate_card(self):
        self._body()
        self._say(200, {"errors": [], "warnings": []})

    def _may_write(self):
        allowed = self.headers.get("Authorization") == f"Bearer {self.server.token}"
        if not allowed:
            self._body()
            self._answer(401, headers={"X-Error-Message": "Invalid username or password."})
        return allowed

    def _body(self):
        """What the client sent, with a length or in chunks."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().strip(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _say(self, status, content):
        self._answer(status, json.dumps(content).encode(), {"Content-Type": "application/json"})


NAME = r"(?P<repo_id>[\w.-]+/[\w.-]+)"
UPLOAD_ROUTES = [
    ("POST", r"/api/repos/create", "create_repo"),
    ("POST", r"/api/validate-yaml", "validate_card"),
    ("POST", rf"/api/models/{NAME}/preupload/(?P<revision>[^/]+)", "preupload"),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", r"/storage/(?P<digest>\w+)", "put_storage"),
    ("POST", rf"/{NAME}/verify", "verify_upload"),
    ("POST", rf"/api/models/{NAME}/commit/(?P<revision>[^/]+)", "commit"),
    ("GET", rf"/api/models/{NAME}/revision/(?P<revision>[^/]+)", "model_info"),
    ("GET", rf"/api/models/{NAME}", "model_info"),
]
