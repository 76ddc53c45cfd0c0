"""A mock engine to be killed: it numbers its tokens and notes each on disk before it sends it, so that its death
forgets none. `python -m tests.system.chaos_engine PORT NOTES`.

The last message of a request says how many tokens it gets and how many milliseconds lie between two: `60 10`. The model
`running` reports its use with each chunk, `late` with the last one only, `silent` never.
"""

import asyncio
import json
import os
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROMPT_TOKENS, CACHED_TOKENS = 11, 4
MODELS = ("running", "late", "silent")
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_GET = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n" + b'{"data":[]}'


def tokens_sent(notes: Path) -> Mapping[str, int]:
    """The most tokens that one answer had by the id of its request; 0 for a request that was only heard."""
    sent: dict[str, int] = defaultdict(int)
    for line in notes.read_text().splitlines():
        request_id, _, count = line.partition(" ")
        sent[request_id] = max(sent[request_id], int(count))
    return sent


async def serve(port: int, notes: Path) -> None:
    """Answer until killed."""
    descriptor = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await _one(reader, writer, descriptor)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


async def _one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, notes: int) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    if head[0].startswith("GET"):
        writer.write(_GET)
        return
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
    body = json.loads(await reader.readexactly(int(headers["content-length"])))
    request_id, model = headers["x-request-id"], body["model"]
    os.write(notes, f"{request_id} 0\n".encode())
    count, gap_ms = (int(word) for word in body["messages"][-1]["content"].split())
    writer.write(_HEAD)
    for number in range(1, count + 1):
        os.write(notes, f"{request_id} {number}\n".encode())
        usage = _usage(number) if model == "running" else {}
        writer.write(_event({"choices": [{"index": 0, "delta": {"content": f"{number} "}}], **usage}))
        await writer.drain()
        if gap_ms:
            await asyncio.sleep(gap_ms / 1000)
    writer.write(_event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
    if model != "silent":
        writer.write(_event({"choices": [], **_usage(count)}))
    writer.write(_framed(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    await writer.drain()


def _usage(output: int) -> dict[str, Any]:
    details = {"cached_tokens": CACHED_TOKENS}
    return {
        "usage": {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": output, "prompt_tokens_details": details},
    }


def _event(fields: dict[str, Any]) -> bytes:
    head = {"id": "always-the-same", "object": "chat.completion.chunk", "created": 1, "model": "mock"}
    return _framed(b"data: " + json.dumps({**head, **fields}).encode() + b"\n\n")


def _framed(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
