"""Knows how to start llama.cpp's server inside this process and how to talk to it over its own unix socket.

Why a socket and not xllamacpp's callbacks: only over a connection does llama.cpp notice that nobody waits any more
while a request is still queued or reading its prompt, and only there can it be asked to tokenise.
"""

import base64
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
import msgspec
import numpy as np
import xllamacpp  # pyright: ignore[reportMissingTypeStubs] - the wheel ships none
from numpy.typing import NDArray

from galerne.engines.failures import EngineFailed, UnusableModel
from galerne.engines.llamacpp.event_stream import EventStream
from galerne.engines.llamacpp.model_file import ModelFile
from galerne.kernel.errors import BadRequest

# Measured on `brise` (8 M parameters): with two threads their synchronisation costs more than the second one gives, and
# plain attention is a fifth faster than the fused one. Both turn around for models that keep a core busy.
_SMALL_PARAMETERS = 100_000_000
_llama: Any = xllamacpp


class Probability(msgspec.Struct):
    """One token with its natural-log probability; `id` is its place in the vocabulary, `bytes` are its UTF-8 bytes."""

    id: int
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list["Probability"] = []


class Timings(msgspec.Struct):
    """llama.cpp's own counts (tokens) and durations (milliseconds) of one request."""

    cache_n: int = 0
    prompt_n: int = 0
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0


class PromptProgress(msgspec.Struct):
    """How much of the prompt has been read: `cache` tokens of `total` did not have to be."""

    total: int = 0
    cache: int = 0


class NativeChunk(msgspec.Struct):
    """One event of llama.cpp's `/completion` stream; the last one has `stop` set and its reason in `stop_type`."""

    content: str = ""
    tokens: list[int] = []
    stop: bool = False
    stop_type: str = "none"
    tokens_predicted: int = 0
    tokens_evaluated: int = 0
    completion_probabilities: list[Probability] = []
    timings: Timings | None = None
    prompt_progress: PromptProgress | None = None
    error: dict[str, Any] | None = None


class _Tokens(msgspec.Struct):
    tokens: list[int]


class _Content(msgspec.Struct):
    content: str


class _Embedding(msgspec.Struct):
    embedding: str


class _Embeddings(msgspec.Struct):
    data: list[_Embedding]


Vectors: TypeAlias = NDArray[np.float32]
_chunks = msgspec.json.Decoder(NativeChunk)


@dataclass(frozen=True)
class NativeOptions:
    """How to run a model: `parallel` requests at once, each with `context` tokens, on `threads` cores."""

    parallel: int
    context: int
    threads: int
    embeddings: bool


def start_native(model: ModelFile, options: NativeOptions, socket: Path) -> object:
    """Loads the model and serves it on `socket` as long as what is returned lives; blocks until it is ready.

    Raises `UnusableModel` when llama.cpp refuses the file.
    """
    params = _llama.CommonParams()
    params.model.path = str(model.path)
    params.n_parallel = options.parallel
    params.n_ctx = options.parallel * options.context
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
    params.hostnames = [str(socket)]
    params.n_threads_http = options.parallel + 4
    params.ui = params.endpoint_slots = params.fit_params = False
    params.cache_ram_mib = 0
    params.verbosity = -1  # llama.cpp logs prompts at its higher levels
    if options.embeddings:
        params.embedding = True
        params.n_batch = params.n_ubatch = max(options.context, 512)
    if model.parameters < _SMALL_PARAMETERS and not options.embeddings:
        params.flash_attn_type = _llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    socket.unlink(missing_ok=True)
    try:
        return _llama.Server(params)
    except RuntimeError as error:
        raise UnusableModel(f"llama.cpp cannot load {model.path}: the file is damaged or of an unknown kind") from error


def threads_for(model: ModelFile, cores: int) -> int:
    """How many threads to compute with on a machine of `cores` cores."""
    return 1 if model.parameters < _SMALL_PARAMETERS else max(1, min(cores, 16))


class NativeClient:
    """Talks to the native server; one per process, closed with `close`."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        # A connection kept alive would hold one of the native server's threads, and it closes them when it likes.
        connector = aiohttp.UnixConnector(path=str(socket), limit=0, force_close=True)
        self._session = aiohttp.ClientSession("http://native", connector=connector, timeout=aiohttp.ClientTimeout())

    async def close(self) -> None:
        """Closes all connections."""
        await self._session.close()

    async def tokenize(self, text: str, *, control: bool, add_special: bool = False) -> list[int]:
        """The tokens of `text`; `control` lets the texts of control tokens stand for them, `add_special` adds BOS."""
        if not text and not add_special:
            return []
        body = {"content": text, "parse_special": control, "add_special": add_special}
        return msgspec.json.decode(await self._post("/tokenize", body), type=_Tokens).tokens

    async def detokenize(self, tokens: list[int]) -> str:
        """The text that `tokens` stand for."""
        return msgspec.json.decode(await self._post("/detokenize", {"tokens": tokens}), type=_Content).content

    async def embed(self, inputs: list[list[int]]) -> Vectors:
        """One L2-normalised row for each token list: float32, (inputs, width)."""
        body = {"input": inputs, "encoding_format": "base64"}
        answer = msgspec.json.decode(await self._post("/v1/embeddings", body), type=_Embeddings)
        return np.stack([np.frombuffer(base64.b64decode(row.embedding), dtype=np.float32) for row in answer.data])

    async def healthy(self) -> bool:
        """Whether the native server answers."""
        try:
            async with self._session.get("/health", timeout=aiohttp.ClientTimeout(total=2)) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def complete(self, body: dict[str, Any]) -> AsyncGenerator[list[NativeChunk]]:
        """Runs one generation; yields the events that have arrived, in order, together when several wait.

        Leaving the iteration early closes the connection, and llama.cpp stops. Raises `EngineFailed`.
        """
        stream = await EventStream.opened(self._socket, "/completion", msgspec.json.encode(body))
        try:
            if stream.status != 200:
                raise _refusal(stream.status, await stream.rest())
            while events := await stream.events():
                yield [_decoded(event) for event in events]
        finally:
            stream.closed()

    async def _post(self, path: str, body: dict[str, Any]) -> bytes:
        async with self._session.post(path, data=msgspec.json.encode(body)) as response:
            content = await response.read()
            if response.status != 200:
                raise _refusal(response.status, content)
            return content


def _decoded(event: bytes) -> NativeChunk:
    if event.startswith(b"error: "):
        raise _refusal(500, event[7:])
    chunk = _chunks.decode(event.removeprefix(b"data: "))
    if chunk.error is not None:
        raise _refusal(500, event.removeprefix(b"data: "))
    return chunk


def _refusal(status: int, content: bytes) -> EngineFailed | BadRequest:
    try:
        error = msgspec.json.decode(content, type=dict[str, dict[str, Any]])["error"]
        message = str(error.get("message", ""))
    except (msgspec.DecodeError, KeyError):
        message = "no reason given"
    return BadRequest(message) if status == 400 else EngineFailed(f"llama.cpp answered {status}: {message}")
