"""The runner's client, against servers that answer as they like."""

import json
import socketserver
import threading
from collections.abc import Callable, Iterator

import pytest

from workers.canary.endpoint import EndpointError, OpenAiEndpoint

Answer = Callable[[socketserver.StreamRequestHandler, threading.Event], None]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Server:
    """Answers every request alike, and keeps what it was sent."""

    def __init__(self) -> None:
        self.answer: Answer = write(OK)
        self.bodies: list[bytes] = []
        self.headers: list[bytes] = []
        self.stop = threading.Event()
        server = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                length = 0
                while (line := self.rfile.readline().strip()) != b"":
                    server.headers.append(line)
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                server.bodies.append(self.rfile.read(length))
                server.answer(self, server.stop)

        self.tcp = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.tcp.serve_forever)
        self.thread.start()

    def endpoint(self, answer_seconds: float = 60.0) -> OpenAiEndpoint:
        url = f"http://127.0.0.1:{self.tcp.server_address[1]}/v1/"
        return OpenAiEndpoint(url, "m", answer_tokens=5, api_key="key", answer_seconds=answer_seconds)

    def close(self) -> None:
        self.stop.set()
        self.tcp.shutdown()
        self.thread.join()
        self.tcp.server_close()


def write(data: bytes) -> Answer:
    def answer(handler: socketserver.StreamRequestHandler, stop: threading.Event) -> None:
        del stop
        handler.wfile.write(data)

    return answer


def trickle(start: bytes) -> Answer:
    """Write a byte at a time for ever, each long before a read could time out."""

    def answer(handler: socketserver.StreamRequestHandler, stop: threading.Event) -> None:
        handler.wfile.write(start)
        while not stop.wait(0.05):
            try:
                handler.wfile.write(b"a")
            except OSError:
                return

    return answer


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


def test_a_canary_is_a_short_completion_with_its_token_and_a_salt(server: Server) -> None:
    server.endpoint().ask([5, 7], "token", "nonce")

    [body] = server.bodies
    assert json.loads(body) == {
        "model": "m",
        "prompt": [5, 7],
        "max_tokens": 5,
        "temperature": 0.0,
        "vllm_xargs": {"subtext_canary": "token"},
        "cache_salt": "nonce",
    }
    assert server.headers[0] == b"POST /v1/completions HTTP/1.1"
    assert b"authorization: bearer key" in [header.lower() for header in server.headers]


def test_a_server_that_refuses_is_an_error_without_the_token(server: Server) -> None:
    server.answer = write(b"HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\ntoken")

    with pytest.raises(EndpointError, match=r"^HTTP 503$"):
        server.endpoint().ask([5, 7], "token", "nonce")


def test_a_server_that_is_away_is_an_error(server: Server) -> None:
    endpoint = server.endpoint()
    server.close()

    with pytest.raises(EndpointError, match=r"^ConnectError$"):
        endpoint.ask([5, 7], "token", "nonce")


@pytest.mark.parametrize(
    "start", [b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n"]
)
def test_a_server_that_trickles_does_not_hold_the_runner(server: Server, start: bytes) -> None:
    server.answer = trickle(start)

    with pytest.raises(EndpointError, match=r"^no answer within 1 s$"):
        server.endpoint(answer_seconds=1.0).ask([5, 7], "token", "nonce")
