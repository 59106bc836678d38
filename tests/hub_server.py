"""A small Hugging Face Hub on loopback: enough of its API for the real clients, and its ways of failing.

Serves a tiny teacher, a tiny student and a tiny glue/sst2 under the article's names. `Hub.mode` switches between
working and failing; every request is logged in `Hub.log`.
"""

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = hashlib.sha1(b"tiny hub").hexdigest()
MODES = ("works", "404", "429", "503", "cut")


class Hub(ThreadingHTTPServer):
    """`root` holds models/OWNER/NAME/... and datasets/OWNER/NAME/..."""

    daemon_threads = True

    def __init__(self, root: Path, mode: str = "works"):
        super().__init__(("127.0.0.1", 0), Handler)
        self.root, self.mode, self.log = root, mode, []

    @property
    def url(self) -> str:
        """What HF_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """One request: `/api/...` speaks JSON, `/OWNER/NAME/resolve/REVISION/FILE` gives files."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        """Nothing on standard error; the server's own log has it."""

    def do_HEAD(self):
        """As GET, without the body."""
        self.answer()

    def do_GET(self):
        """A file or a piece of JSON."""
        self.answer()

    def do_POST(self):
        """`paths-info` asks about a list of files."""
        self.answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def answer(self, body: bytes = b"") -> None:
        """Fail as the mode says, else route."""
        path = unquote(urlsplit(self.path).path)
        self.server.log.append(f"{self.command} {path}")
        mode = self.server.mode
        if mode == "404":
            return self.send(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})
        if mode in ("429", "503"):
            return self.send(int(mode), b'{"error": "not now"}', {"Retry-After": "0"})
        file = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
        if file:
            kind = "datasets" if file[1] else "models"
            return self.send_file(self.server.root / kind / file[2], file[3])
        api = re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(/.*)?", path)
        if api:
            return self.send_api(api[1], api[2], api[3] or "", body)
        return self.send(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    def send_file(self, folder: Path, name: str) -> None:
        """A file with the headers that the client builds its cache on."""
        if not folder.is_dir():
            return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        headers = {"X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if not (folder / name).is_file():
            return self.send(404, b"", headers | {"X-Error-Code": "EntryNotFound"})
        content = (folder / name).read_bytes()
        return self.send(200, content, headers | {"ETag": f'"{hashlib.sha1(content).hexdigest()}"'})

    def send_api(self, kind: str, repo: str, rest: str, body: bytes) -> None:
        """Repository info, file listings, and facts about named paths."""
        folder = self.server.root / kind / repo
        if not folder.is_dir():
            return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        entries = [entry(path, folder) for path in files]
        if rest == "" or re.fullmatch(r"/revision/[^/]+", rest):
            siblings = [{"rfilename": item["path"]} for item in entries]
            return self.send_json({"id": repo, "sha": COMMIT, "private": False, "siblings": siblings, "tags": []})
        tree = re.fullmatch(r"/tree/[^/]+(?:/(.*))?", rest)
        if tree:
            deep = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() == "true"
            found = listing(entries, tree[1] or "", deep)
            return self.send_json(found) if found else self.send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        if re.fullmatch(r"/paths-info/[^/]+", rest):
            try:
                wanted = json.loads(body)["paths"]
            except ValueError:
                wanted = parse_qs(body.decode())["paths"]
            wanted = [wanted] if isinstance(wanted, str) else wanted
            folders = [
                {"type": "directory", "path": name, "oid": COMMIT, "size": 0}
                for name in wanted
                if (folder / name).is_dir()
            ]
            return self.send_json([item for item in entries if item["path"] in wanted] + folders)
        return self.send(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    def send_json(self, value) -> None:
        """A JSON answer."""
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, body: bytes, headers: dict) -> None:
        """Status, headers, body; in mode "cut" the line goes dead in the middle of a body."""
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.server.mode == "cut":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.connection.close()
            self.close_connection = True
            return
        self.wfile.write(body)


def entry(path: Path, folder: Path) -> dict:
    """A file as the Hub's listings show it."""
    content = path.read_bytes()
    return {
        "type": "file",
        "path": path.relative_to(folder).as_posix(),
        "size": len(content),
        "oid": hashlib.sha1(content).hexdigest(),
    }


def listing(entries: list[dict], under: str, deep: bool) -> list[dict]:
    """The files below a folder; unless `deep`, only its own, with a line for each folder in it."""
    prefix = f"{under}/" if under else ""
    below = [item for item in entries if item["path"].startswith(prefix)]
    direct = [item for item in below if "/" not in item["path"][len(prefix) :]]
    names = sorted({item["path"][len(prefix) :].split("/")[0] for item in below if item not in direct})
    folders = [{"type": "directory", "path": prefix + name, "oid": COMMIT, "size": 0} for name in names]
    return folders + (below if deep else direct)


@contextmanager
def running_hub(root: Path, mode: str = "works"):
    """A hub that answers for the length of a `with` block."""
    hub = Hub(root, mode)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join(timeout=5)
