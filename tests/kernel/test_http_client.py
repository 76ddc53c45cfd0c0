"""The HTTP client against servers that write bytes, on both event loops: what it keeps and refuses, when it waits."""

import asyncio
import contextlib
import shutil
import ssl
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest

from galerne.kernel import http_client
from galerne.kernel.http_client import Address, Answer, Client, Lost, NotConnected, request_to

HEAD = b"GET / HTTP/1.1\r\nhost: test\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Answers each request with the next of `answers`, the last one again and again; ends connections at `hang_up`."""

    def __init__(self, *answers: bytes, hang_up: bool = False) -> None:
        self.answers = list(answers)
        self.hang_up = hang_up
        self.connections = 0
        self.requests: list[bytes] = []
        self.ended = asyncio.Event()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                if answer := self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]:
                    writer.write(answer)
                    await writer.drain()
                if self.hang_up:
                    break
        writer.close()
        self.ended.set()


@contextlib.asynccontextmanager
async def listening(
    handler: Handler, tls: ssl.SSLContext | None = None, path: Path | None = None
) -> AsyncGenerator[Address]:
    handling: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handling.add(task)
        try:
            await handler(reader, writer)
        finally:
            writer.transport.abort()

    where = {"path": path} if path is not None else {"host": "127.0.0.1", "port": 0}
    start = asyncio.start_server if path is None else asyncio.start_unix_server
    server = await start(handle, **where, ssl=tls)
    try:
        yield Address("127.0.0.1", 0 if path else server.sockets[0].getsockname()[1], tls is not None)
    finally:
        server.close()
        if handling:
            await asyncio.wait(handling, timeout=2)
        await asyncio.sleep(0.01)


async def read(answer: Answer) -> bytes:
    with contextlib.closing(answer):
        raw = await answer.read_all(10_000_000)
    assert raw is not None
    return raw


async def asked(server: Server) -> tuple[int, dict[bytes, bytes], bytes]:
    client = Client()
    async with listening(server.handle) as address:
        try:
            answer = await client.send(address, HEAD, None, 2)
            return answer.status, answer.headers, await read(answer)
        finally:
            client.close()


async def test_a_connection_is_used_again_after_an_answer_that_was_read() -> None:
    server, client = Server(OK + b"content-length: 2\r\n\r\nhi"), Client()
    async with listening(server.handle) as address:
        for _ in range(3):
            assert await read(await client.send(address, HEAD, None, 2)) == b"hi"
        client.close()
    assert (server.connections, len(server.requests)) == (1, 3)


async def test_answers_at_the_same_time_have_a_connection_each() -> None:
    server, client = Server(OK + b"content-length: 2\r\n\r\nhi"), Client()
    async with listening(server.handle) as address:
        answers = await asyncio.gather(*(client.send(address, HEAD, None, 2) for _ in range(5)))
        assert [await read(answer) for answer in answers] == [b"hi"] * 5
        client.close()
    assert server.connections == 5


async def test_a_body_and_its_length_follow_the_head() -> None:
    came: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(await reader.readuntil(b"\r\n\r\n"))
        came.append(await reader.readexactly(3))
        writer.write(OK + b"content-length: 0\r\n\r\n")
        await reader.read()
        writer.close()

    client = Client()
    async with listening(handle) as address:
        assert await read(await client.send(address, HEAD.replace(b"GET", b"PUT"), b"abc", 2)) == b""
        client.close()
    assert came == [b"PUT / HTTP/1.1\r\nhost: test\r\ncontent-length: 3\r\n\r\n", b"abc"]


@pytest.mark.parametrize(
    ("raw", "body", "hang_up"),
    [
        (b"content-length: 5\r\n\r\nhello", b"hello", False),
        (b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nafter: all\r\n\r\n", b"hello", False),
        (b"\r\nhello", b"hello", True),
        (b"connection: close\r\n\r\nhello", b"hello", True),
        (b"content-length: 0\r\n\r\n", b"", False),
    ],
)
async def test_a_body_ends_where_the_answer_says(raw: bytes, body: bytes, hang_up: bool) -> None:
    status, _, found = await asked(Server(OK + b"X-Name: value\r\n" + raw, hang_up=hang_up))
    assert (status, found) == (200, body)


async def test_names_of_headers_come_in_lower_case() -> None:
    _, headers, _ = await asked(Server(OK + b"X-Name: Value\r\ncontent-length: 0\r\n\r\n"))
    assert headers[b"x-name"] == b"Value"


async def test_what_comes_before_the_answer_is_no_answer() -> None:
    before = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    status, headers, body = await asked(Server(before + OK + b"content-length: 2\r\n\r\nhi"))
    assert (status, headers, body) == (200, {b"content-length": b"2"}, b"hi")


@pytest.mark.parametrize(
    "head",
    [
        OK + b"x: " + b"a" * 70_000 + b"\r\ncontent-length: 0\r\n\r\n",
        OK + b"x: " + b"a" * 3_000_000,
        OK + b"a" * 3_000_000,
        OK + b"x: y\r\n" * 500_000,
        b"HTTP/1.1 100 Continue\r\nx: y\r\n\r\n" * 100_000,
    ],
    ids=["long", "endless value", "endless name", "endless list", "endless continue"],
)
async def test_a_head_that_is_too_large_is_refused(head: bytes) -> None:
    with pytest.raises(Lost):
        await asked(Server(head))


async def test_a_trailer_that_is_too_large_is_refused() -> None:
    chunked = OK + b"transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n0\r\nx: " + b"a" * 3_000_000
    with pytest.raises(Lost):
        await asked(Server(chunked))


@pytest.mark.parametrize(
    "raw",
    [b"SSH-2.0-OpenSSH\r\n", b"\x16\x03\x01\x00", b"HTTP/1.1 abc\r\n\r\n", OK + b"content-length: x\r\n\r\n"],
)
async def test_what_is_not_http_is_refused(raw: bytes) -> None:
    with pytest.raises(Lost):
        await asked(Server(raw))


async def test_a_server_that_changes_the_protocol_is_refused() -> None:
    with pytest.raises(Lost):
        await asked(Server(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nx"))


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 2", OK + b"content-length: 5\r\n"])
async def test_a_connection_that_ends_before_the_head_is_lost(raw: bytes) -> None:
    with pytest.raises(Lost):
        await asked(Server(raw, hang_up=True))


@pytest.mark.parametrize("framing", [b"content-length: 9\r\n\r\nhi", b"transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n"])
async def test_what_came_is_read_before_a_lost_connection_is_told(framing: bytes) -> None:
    server, client = Server(OK + framing, hang_up=True), Client()
    async with listening(server.handle) as address:
        answer = await client.send(address, HEAD, None, 2)
        assert await answer.read() == b"hi"
        with pytest.raises(Lost):
            await answer.read()
        answer.close()
        client.close()


async def test_more_than_was_asked_for_is_no_part_of_the_answer_and_ends_the_connection() -> None:
    extra = OK + b"content-length: 2\r\n\r\nhi" + OK + b"content-length: 5\r\n\r\nextra"
    server, client = Server(extra), Client()
    async with listening(server.handle) as address:
        for _ in range(2):
            assert await read(await client.send(address, HEAD, None, 2)) == b"hi"
        client.close()
    assert server.connections == 2


async def test_an_answer_that_is_given_up_ends_its_connection() -> None:
    server, client = Server(OK + b"content-length: 9\r\n\r\nhi"), Client()
    async with listening(server.handle) as address:
        answer = await client.send(address, HEAD, None, 2)
        answer.close()
        async with asyncio.timeout(2):
            await server.ended.wait()
        client.close()


async def test_a_server_that_does_not_begin_in_time_is_hung_up_on() -> None:
    server, client = Server(b""), Client()
    async with listening(server.handle) as address:
        with pytest.raises(TimeoutError):
            await client.send(address, HEAD, None, 0.1)
        async with asyncio.timeout(2):
            await server.ended.wait()
        client.close()


async def test_a_body_longer_than_wanted_is_not_read_to_its_end() -> None:
    server, client = Server(OK + b"content-length: 1000000\r\n\r\n" + b"x" * 1_000_000), Client()
    async with listening(server.handle) as address:
        with contextlib.closing(await client.send(address, HEAD, None, 2)) as answer:
            assert await answer.read_all(10_000) is None
        client.close()


async def test_a_slow_reader_holds_up_the_server() -> None:
    size, written = 64 * 1024 * 1024, 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"content-length: %d\r\n\r\n" % size)
        with contextlib.suppress(ConnectionError):
            while written < size:
                writer.write(b"x" * 65_536)
                written += 65_536
                await writer.drain()
        writer.close()

    client = Client()
    async with listening(handle) as address:
        answer = await client.send(address, HEAD, None, 2)
        held_up_at = -1
        while held_up_at != written:
            held_up_at = written
            await asyncio.sleep(0.3)
        assert 0 < written < size / 2
        read_bytes = 0
        while part := await answer.read():
            read_bytes += len(part)
        assert read_bytes == size
        answer.close()
        client.close()


async def test_idle_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "_IDLE_S", 0.1)
    server, client = Server(OK + b"content-length: 0\r\n\r\n"), Client()
    async with listening(server.handle) as address:
        await read(await client.send(address, HEAD, None, 2))
        async with asyncio.timeout(2):
            await server.ended.wait()
        await read(await client.send(address, HEAD, None, 2))
        client.close()
    assert server.connections == 2


async def test_nothing_was_sent_where_nobody_listens(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    for address in (Address("127.0.0.1", port), Address("", 0, socket=str(tmp_path / "none.sock"))):
        with pytest.raises(NotConnected):
            await Client().send(address, HEAD, None, 2)
    with pytest.raises(NotConnected):
        await Client().send(Address("a" * 300 + ".test", 1), HEAD, None, 2)


async def test_a_unix_socket_is_spoken_to_as_any_server(tmp_path: Path) -> None:
    server, client = Server(OK + b"content-length: 2\r\n\r\nhi"), Client()
    address, head = request_to("GET", "http://test/health", {}, tmp_path / "server.sock")
    async with listening(server.handle, path=tmp_path / "server.sock"):
        for _ in range(2):
            assert await read(await client.send(address, head, None, 2)) == b"hi"
        client.close()
    assert (server.connections, server.requests[0]) == (1, b"GET /health HTTP/1.1\r\nhost: test\r\n\r\n")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make a certificate")
    key, made = folder / "key.pem", folder / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", made], check=True, capture_output=True)
    return made, key


@pytest.mark.parametrize("raw", [b"content-length: 5\r\n\r\nhello", b"connection: close\r\n\r\nhello"])
async def test_tls_trusts_whom_it_is_told_to(certificate: tuple[Path, Path], raw: bytes) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server = Server(OK + raw, hang_up=b"close" in raw)
    client = Client(ssl.create_default_context(cafile=str(certificate[0])))
    async with listening(server.handle, context) as address:
        for _ in range(2):
            assert await read(await client.send(address, HEAD, None, 2)) == b"hello"
        client.close()
        with pytest.raises(NotConnected):
            await Client().send(address, HEAD, None, 2)
    assert len(server.requests) == 2


def test_an_address_becomes_the_head_of_a_request() -> None:
    address, head = request_to("GET", "https://user@[::1]/v1/é models?x=1", {"accept": "a/b"})
    assert address == Address("::1", 443, tls=True)
    assert head == b"GET /v1/%C3%A9%20models HTTP/1.1\r\nhost: [::1]\r\naccept: a/b\r\n"


@pytest.mark.parametrize(
    ("url", "header"),
    [("http://a/", "x\r\ny: z"), ("http://a/", "é"), ("http://é/", "x"), ("http://a:b/", "x"), ("http://[a/", "x")],
)
def test_what_cannot_be_sent_is_refused_before_it_is(url: str, header: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        request_to("GET", url, {"name": header})
