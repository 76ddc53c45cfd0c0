"""Knows how an engine process starts, says that it is ready, and ends."""

import os
import signal
import socket
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn
import uvloop

from galerne.engines.failures import UnusableModel
from galerne.engines.llamacpp.conversion import Precision, gguf_file
from galerne.engines.llamacpp.generation import Generator
from galerne.engines.llamacpp.measures import Measures
from galerne.engines.llamacpp.model_file import ModelFile, read_model_file
from galerne.engines.llamacpp.native import NativeClient, NativeOptions, start_native, threads_for
from galerne.engines.llamacpp.prompts import ChatTemplate
from galerne.engines.llamacpp.runtime import Runtime
from galerne.engines.llamacpp.server import EngineApp
from galerne.kernel.clock import SystemClock

_LARGEST_EMBEDDING_CONTEXT = 8192
_LARGEST_CONTEXT = 8192
_LONGEST_SOCKET_PATH = 95  # of the 107 bytes that Linux allows (unix(7)); the native server's path is longer by 12
_SHUTDOWN_S = 30
_TELLING_NICENESS = 5


@dataclass(frozen=True)
class EngineOptions:
    """What `galerne engine llamacpp` was asked for; None leaves the choice to the engine."""

    model: Path
    socket: Path
    cache: Path
    name: str | None = None
    parallel: int = 8
    context: int | None = None
    threads: int | None = None
    embeddings: bool = False
    precision: Precision = "f16"
    follow_stdin: bool = False


def serve(options: EngineOptions) -> None:
    """Runs the engine until SIGTERM or SIGINT, then lets running requests finish.

    Raises `UnusableModel` when the model cannot be loaded; nothing listens then.
    """
    os.umask(0o077)
    if options.follow_stdin:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    if len(os.fsencode(options.socket)) > _LONGEST_SOCKET_PATH:
        raise UnusableModel(f"the socket path {options.socket} is longer than {_LONGEST_SOCKET_PATH} bytes")
    model = read_model_file(gguf_file(options.model, options.cache, options.precision))
    if options.embeddings != model.embeds:
        does = "embeds text: start it with --embeddings" if model.embeds else "generates text: leave out --embeddings"
        raise UnusableModel(f"{options.model} {does}")
    native_socket = options.socket.with_name(options.socket.name + ".native.sock")  # llama.cpp tells sockets by it
    native_options = _native_options(options, model)
    native = start_native(model, native_options, native_socket)
    try:
        uvloop.run(_serve(options, model, native_options, native_socket))
    finally:
        native_socket.unlink(missing_ok=True)
        options.socket.unlink(missing_ok=True)
        del native
        sys.stderr.flush()
        # llama.cpp's threads may still compute for callers who are gone; nothing of theirs is worth waiting for.
        os._exit(0 if sys.exc_info()[0] is None else 1)


def _native_options(options: EngineOptions, model: ModelFile) -> NativeOptions:
    most = _LARGEST_EMBEDDING_CONTEXT if model.embeds else _LARGEST_CONTEXT
    context = min(options.context or min(model.context_length, most), model.context_length)
    threads = options.threads or threads_for(model, os.cpu_count() or 1)
    return NativeOptions(options.parallel, context, threads, options.embeddings)


async def _serve(options: EngineOptions, model: ModelFile, native: NativeOptions, native_socket: Path) -> None:
    # Where cores are few, generating goes before telling: what waits meanwhile is told together.
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _TELLING_NICENESS)
    clock, measures, client = SystemClock(), Measures(), NativeClient(native_socket)
    runtime = Runtime(
        name=options.name or options.model.stem,
        model=model,
        context=native.context,
        client=client,
        template=ChatTemplate(model, clock),
        generator=Generator(client, native.parallel, clock, measures),
        measures=measures,
        clock=clock,
    )
    config = uvicorn.Config(
        EngineApp(runtime),
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=_SHUTDOWN_S,
        timeout_keep_alive=300,
    )
    server = uvicorn.Server(config)

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn's own handlers come a moment after the socket does, and it raises what they caught again when it is done.
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, stop)
    with closing(_listening(options.socket)) as listening:
        await server.serve(sockets=[listening])
    await client.close()


def _listening(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    return listening


def _end_with_stdin() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_SHUTDOWN_S)
    os._exit(1)  # native code that hangs would outlive everyone who could end it
