"""The embedded engine: one model, run by llama.cpp inside this process, answering in OpenAI's protocol on a socket."""

from galerne.engines.llamacpp.process import EngineOptions, serve

__all__ = ["EngineOptions", "serve"]
