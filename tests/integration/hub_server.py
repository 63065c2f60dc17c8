# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""A stand-in for the Hub: as much of its HTTP API as a push and a download need, on 127.0.0.1."""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml


@dataclass
class Repository:
    files: dict[str, bytes] = field(default_factory=dict)
    lfs: set[str] = field(default_factory=set)
    messages: list[str] = field(default_factory=list)

    @property
    def sha(self) -> str:
        return hashlib.sha1(str(len(self.messages)).encode()).hexdigest()


class Hub:
    """The stand-in; a context manager that serves on a free port."""

    def __init__(self, token: str):
        self.token = token
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.validated: list[str] = []
        self.unknown: list[str] = []
        # Of every request: its path, and its body. What a client sends anywhere has reached the Hub.
        self.received: list[tuple[str, bytes]] = []
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()

    def metadata_errors(self, content: str) -> list[str]:
        """What the Hub would refuse in the metadata of a card."""
        match = re.match(r"---\n(.*?)\n---\n", content, flags=re.DOTALL)
        if match is None:
            return ["the card has no metadata"]
        metadata = yaml.safe_load(match[1])
        errors = []
        for name in ("base_model", "datasets"):
            values = metadata.get(name) or []
            for value in [values] if isinstance(values, str) else values:
                if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", value):
                    errors.append(f'"{name}" with value "{value}" is not valid')
        for name in ("library_name", "license", "pipeline_tag"):
            if not re.fullmatch(r"[a-z0-9.-]+", metadata.get(name) or "unset"):
                errors.append(f'"{name}" is not valid')
        if not all(isinstance(tag, str) for tag in metadata.get("tags", [])):
            errors.append('"tags" must be strings')
        return errors


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def reply(self, body: Any = b"", status: int = 200, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def missing(self, code: str) -> None:
        self.reply({"error": "not found"}, 404, X_Error_Code=code)

    def do_PUT(self) -> None:
        self.answer()

    do_POST = do_HEAD = do_GET = do_PUT

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        path = self.path.split("?")[0]
        self.hub.received.append((path, body))

        if self.command == "PUT" and path.startswith("/lfs/"):
            # An address of storage, which knows nothing of tokens.
            self.hub.objects[hashlib.sha256(body).hexdigest()] = body
            return self.reply()
        if path == "/api/validate-yaml":
            content = json.loads(body)["content"]
            self.hub.validated.append(content)
            errors = self.hub.metadata_errors(content)
            return self.reply(
                {"errors": [{"message": error} for error in errors], "warnings": []}, 400 if errors else 200
            )
        if self.command == "POST" and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self.reply({"error": "unauthorised"}, 401)
        if path == "/api/whoami-v2":
            return self.reply({"type": "user", "name": "someone", "orgs": []})
        if path == "/api/repos/create":
            request = json.loads(body)
            name = f"{request.get('organization') or 'someone'}/{request['name']}"
            status = 409 if name in self.hub.repositories else 200
            self.hub.repositories.setdefault(name, Repository())
            return self.reply({"url": f"{self.hub.endpoint}/{name}", "id": name}, status)
        for pattern, method in (
            (r"/api/models/([^/]+/[^/]+)/preupload/main", self.preupload),
            (r"/api/models/([^/]+/[^/]+)/commit/main", self.commit),
            (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self.lfs_batch),
            (r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", self.resolve),
            (r"/api/models/([^/]+/[^/]+)/tree/[^/]+(?:/(.*))?", self.tree),
            (r"/api/models/([^/]+/[^/]+)(?:/revision/[^/]+)?", self.info),
        ):
            if match := re.fullmatch(pattern, path):
                name, *rest = match.groups()
                if name not in self.hub.repositories:
                    return self.missing("RepoNotFound")
                return method(self.hub.repositories[name], name, body, *rest)
        self.hub.unknown.append(f"{self.command} {path}")
        return self.missing("EntryNotFound")

    def preupload(self, repository: Repository, name: str, body: bytes) -> None:
        modes = [
            {
                "path": item["path"],
                "uploadMode": "lfs" if item["path"].endswith((".safetensors", ".pt", ".bin", ".pth")) else "regular",
                "shouldIgnore": False,
            }
            for item in json.loads(body)["files"]
        ]
        self.reply({"files": modes})

    def lfs_batch(self, repository: Repository, name: str, body: bytes) -> None:
        objects = [
            {"oid": item["oid"], "size": item["size"]}
            | (
                {}
                if item["oid"] in self.hub.objects
                else {"actions": {"upload": {"href": f"{self.hub.endpoint}/lfs/{item['oid']}"}}}
            )
            for item in json.loads(body)["objects"]
        ]
        self.reply({"transfer": "basic", "objects": objects}, Content_Type="application/vnd.git-lfs+json")

    def commit(self, repository: Repository, name: str, body: bytes) -> None:
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                repository.messages.append(value["summary"])
            elif item["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                repository.files[value["path"]] = self.hub.objects[value["oid"]]
                repository.lfs.add(value["path"])
            else:
                self.hub.unknown.append(f"commit {item['key']}")
        sha = repository.sha
        self.reply({"commitUrl": f"{self.hub.endpoint}/{name}/commit/{sha}", "commitOid": sha, "hookOutput": ""})

    def resolve(self, repository: Repository, name: str, body: bytes, path: str) -> None:
        if path not in repository.files:
            return self.missing("EntryNotFound")
        content = repository.files[path]
        headers = {"X_Repo_Commit": repository.sha, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        self.reply(content, Content_Type="application/octet-stream", **headers)

    def tree(self, repository: Repository, name: str, body: bytes, folder: str | None) -> None:
        paths = [path for path in repository.files if not folder or path.startswith(f"{folder}/")]
        if folder and not paths:
            return self.missing("EntryNotFound")
        self.reply([{"type": "file", "path": path, "size": len(repository.files[path]), "oid": "0"} for path in paths])

    def info(self, repository: Repository, name: str, body: bytes) -> None:
        siblings = [{"rfilename": path} for path in repository.files]
        self.reply({"id": name, "sha": repository.sha, "siblings": siblings, "tags": [], "private": False})
