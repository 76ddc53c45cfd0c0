"""The engine processes that run a model: llama.cpp in a process of our own, and the supervision of such processes."""

from galerne.engines.failures import EngineFailed, UnusableModel
from galerne.engines.llamacpp.process import EngineOptions
from galerne.engines.llamacpp.process import serve as serve_llamacpp

__all__ = ["EngineFailed", "EngineOptions", "UnusableModel", "serve_llamacpp"]
