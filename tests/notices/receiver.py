"""A receiver of webhooks on loopback, which checks signatures as a customer's would, and answers as it is told."""

import asyncio
import base64
import hmac
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256


@dataclass
class Received:
    """A request."""

    path: str
    headers: dict[str, str]
    body: bytes

    def is_signed_with(self, *secrets: str) -> bool:
        """Whether these signed it, in this order, and nothing else."""
        told = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + self.body
        keys = (base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets)
        digests = (base64.b64encode(hmac.new(key, told, sha256).digest()).decode() for key in keys)
        return self.headers["webhook-signature"] == " ".join(f"v1,{digest}" for digest in digests)


@dataclass
class Receiver:
    """What came, and with which status it was answered; `then` is called before an answer."""

    port: int = 0
    status: int = 204
    then: Callable[[], Awaitable[object] | None] = lambda: None
    received: list[Received] = field(default_factory=list[Received])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks?token=s3cret"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        original = {line.split(": ", 1)[0].lower(): line.split(": ", 1)[1] for line in lines if line}
        body = await reader.readexactly(int(headers["content-length"]))
        self.received.append(Received(first.split(" ")[1], original, body))
        waited_for = self.then()
        if waited_for is not None:
            await waited_for
        writer.write(f"HTTP/1.1 {self.status} x\r\ncontent-length: 0\r\nlocation: http://127.0.0.1/\r\n\r\n".encode())
        await writer.drain()
        writer.close()


@asynccontextmanager
async def receiving() -> AsyncGenerator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.answer, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        await server.wait_closed()
