"""The engine processes that run a model: how they are kept running, and where they answer.

What such a process does is in `galerne.engines.llamacpp`, which is not imported here: only the process itself needs it.
"""

from galerne.engines.failures import EngineFailed, UnusableModel
from galerne.engines.supervision import Policy, State
from galerne.engines.supervisor import EngineSpec, ProcessSpec, Replica, Supervisor

__all__ = ["EngineFailed", "EngineSpec", "Policy", "ProcessSpec", "Replica", "State", "Supervisor", "UnusableModel"]
