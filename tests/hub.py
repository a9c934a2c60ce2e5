"""A hub on the loopback: enough of the real one's interface for the real clients (HF_ENDPOINT=http://127.0.0.1:PORT).

Folder served:   ORG/NAME/...            model repositories
                 datasets/ORG/NAME/...   data set repositories
                 raw/...                 plain files at /raw/, for INFOSTEER_DATA_URL

    with Hub(root, gated={"meta-llama/Llama-3.2-1B": "secret"}) as hub:      # in a test's process
        os.environ["HF_ENDPOINT"], os.environ["INFOSTEER_DATA_URL"] = hub.url, hub.raw_url
    python tests/hub.py --root DIR --port-file FILE [--gated ORG/NAME=TOKEN]   # for subprocesses; stop it by SIGTERM

No xet is advertised, so the clients take plain HTTP. GET /_requests tells the requests so far as a JSON list.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

_API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+)(?:/(.*))?)?")
_RESOLVE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class Hub:
    """The server as a context manager.

    gated: repository -> token that opens it. faults: path below raw/ -> what goes wrong on its next requests, in turn:
    "500", "truncate" (half of the body, then the connection closes) or "wrong" (other bytes of the same length).
    """

    def __init__(
        self,
        root: Path,
        *,
        gated: dict[str, str] | None = None,
        faults: dict[str, list[str]] | None = None,
    ) -> None:
        self.root, self.gated, self.faults = root.resolve(), gated or {}, faults or {}
        self.requests: list[tuple[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.hub = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.raw_url = self.url + "/raw"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Hub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def count(self, text: str, method: str = "GET") -> int:
        """How many requests of `method` had `text` in their path."""
        return sum(m == method and text in path for m, path in self.requests)

    def repo_folder(self, kind: str, repo: str) -> Path:
        """Where a repository's files are."""
        return self.root / "datasets" / repo if kind == "datasets" else self.root / repo

    def commit(self, folder: Path) -> str:
        """A repository's revision: 40 hex digits that change with its files."""
        lines = [f"{path.relative_to(folder)} {_sha(path, 'sha256')}" for path in _files(folder)]
        return hashlib.sha1("\n".join(lines).encode()).hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sha(path: Path, name: str) -> str:
    return hashlib.new(name, path.read_bytes()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: the requests are kept in Hub.requests."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined]

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == "/_requests":
            return self._json(self.hub.requests)
        self.hub.requests.append((self.command, path))
        if match := _API.fullmatch(path):
            return self._api(*match.groups())
        if match := _RESOLVE.fullmatch(path):
            return self._resolve(*match.groups())
        if path.startswith("/raw/"):
            return self._raw(path.removeprefix("/raw/"))
        return self._send(404, b"not found")

    def _allowed(self, repo: str) -> bool:
        """Whether this request may read `repo`'s files; answers it if not, as the real hub does."""
        token = self.hub.gated.get(repo)
        given = self.headers.get("Authorization")
        if token is None or given == f"Bearer {token}":
            return True
        message = f"Access to model {repo} is restricted."
        headers = {"X-Error-Code": "GatedRepo", "X-Error-Message": message}
        self._send(403 if given else 401, message.encode(), headers)
        return False

    def _api(self, kind: str, repo: str, what: str | None, revision: str | None, below: str | None) -> None:
        folder = self.hub.repo_folder(kind, repo)
        if not folder.is_dir():
            return self._error(401, "RepoNotFound")
        commit = self.hub.commit(folder)
        if revision not in (None, "main", commit):
            return self._error(404, "RevisionNotFound")
        if what == "tree":
            if not self._allowed(repo):
                return None
            base = folder / below if below else folder
            if not base.is_dir():
                return self._error(404, "EntryNotFound")
            return self._json([_entry(path, folder) for path in _files(base)])
        # As on the real hub, a gated repository's description is public, its files are not.
        names = [{"rfilename": str(path.relative_to(folder))} for path in _files(folder)]
        gated = "manual" if repo in self.hub.gated else False
        return self._json(
            {"_id": commit[:24], "id": repo, "sha": commit, "private": False, "gated": gated, "tags": [],
             "siblings": names}
        )  # fmt: skip

    def _resolve(self, dataset: str | None, repo: str, revision: str, name: str) -> None:
        folder = self.hub.repo_folder("datasets" if dataset else "models", repo)
        if not folder.is_dir():
            return self._error(401, "RepoNotFound")
        if not self._allowed(repo):
            return None
        commit = self.hub.commit(folder)
        if revision not in ("main", commit):
            return self._error(404, "RevisionNotFound")
        path = folder / name
        if not path.is_file():
            return self._error(404, "EntryNotFound", {"X-Repo-Commit": commit})
        etag = f'"{_sha(path, "sha256")}"'
        return self._file(path.read_bytes(), {"X-Repo-Commit": commit, "ETag": etag})

    def _raw(self, name: str) -> None:
        path = self.hub.root / "raw" / name
        if not path.is_file():
            return self._send(404, b"not found")
        content, pending = path.read_bytes(), self.hub.faults.get(name, [])
        fault = pending.pop(0) if pending else None
        if fault == "500":
            return self._send(500, b"broken")
        if fault == "wrong":
            content = bytes(byte ^ 1 for byte in content)
        return self._file(content, {}, truncate=fault == "truncate")

    def _file(self, content: bytes, headers: dict[str, str], *, truncate: bool = False) -> None:
        status, headers = 200, {"Accept-Ranges": "bytes", **headers}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted:
            start, end = int(wanted[1]), int(wanted[2] or len(content) - 1)
            if start >= len(content):
                return self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            status, headers["Content-Range"] = 206, f"bytes {start}-{end}/{len(content)}"
            content = content[start : end + 1]
        self._send(status, content, headers, cut=len(content) // 2 if truncate else None)
        return None

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self._send(status, code.encode(), {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True


def _entry(path: Path, folder: Path) -> dict[str, object]:
    size = path.stat().st_size
    git_blob = hashlib.sha1(f"blob {size}\0".encode() + path.read_bytes()).hexdigest()
    return {"type": "file", "oid": git_blob, "size": size, "path": str(path.relative_to(folder))}


def main() -> None:
    """Serve until stopped; the port is written to --port-file once the server listens."""
    import signal

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--port-file", type=Path, required=True)
    parser.add_argument("--gated", action="append", default=[], metavar="ORG/NAME=TOKEN")
    parser.add_argument("--fault", action="append", default=[], metavar="PATH=500|truncate|wrong")
    args = parser.parse_args()
    faults: dict[str, list[str]] = {}
    for text in args.fault:
        path, _, fault = text.rpartition("=")
        faults.setdefault(path, []).append(fault)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with Hub(args.root, gated=dict(text.split("=", 1) for text in args.gated), faults=faults) as hub:
        partial = args.port_file.with_suffix(".tmp")
        partial.write_text(hub.url.rpartition(":")[2])
        partial.replace(args.port_file)
        stop.wait()


if __name__ == "__main__":
    main()
