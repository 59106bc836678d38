"""An OpenAI-compatible endpoint on this machine, to try a paid one's ways for nothing."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Endpoint:
    """A server on loopback that answers chat completions with `reply(last message)`; `served` counts its answers.

    What is put into `troubles` is what the next requests get instead: HTTP statuses, one a request; 429 asks to wait
    a second.
    """

    reply: Callable[[str], str]
    url: str = ""
    served: int = 0
    troubles: list[int] = field(default_factory=list)


@contextmanager
def pretend_endpoint(reply: Callable[[str], str]) -> Iterator[Endpoint]:
    """An `Endpoint` for the length of a `with` block.

    >>> with pretend_endpoint(lambda message: "50") as endpoint:
    ...     client = huggingface_hub.InferenceClient(base_url=endpoint.url, api_key="none")  # doctest: +SKIP
    """
    endpoint = Endpoint(reply)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = endpoint.troubles.pop(0) if endpoint.troubles else 200
            content = endpoint.reply(asked["messages"][-1]["content"]) if status == 200 else "try later"
            endpoint.served += status == 200
            body = json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}).encode()
            self.send_response(status)
            if status == 429:
                self.send_header("Retry-After", "1")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """The base class would print every request."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield endpoint
        server.shutdown()
