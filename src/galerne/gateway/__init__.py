"""The data plane: OpenAI's and Mistral's wires, admission, routing, streaming, and settlement of what was used."""

from galerne.gateway import tables
from galerne.gateway.asgi import INFERENCE_PATHS, Gateway
from galerne.gateway.caller import GONE, STALL_S, Caller, Gone, HungUp, Scope
from galerne.gateway.cards import model_card
from galerne.gateway.dialect import Dialect, choose_dialect, split_mount
from galerne.gateway.health import Failure, HealthBook, HealthState, ReplicaHealth
from galerne.gateway.keys import KeyCache, key_reader, presented_key
from galerne.gateway.openapi import PERMISSION, openapi_schema
from galerne.gateway.probes import Probes, replica_reader
from galerne.gateway.routes import model_routes
from galerne.gateway.routing import Replica, Replicas
from galerne.gateway.wire.errors import error_body, error_headers, error_status

__all__ = [
    "GONE",
    "INFERENCE_PATHS",
    "PERMISSION",
    "STALL_S",
    "Caller",
    "Dialect",
    "Failure",
    "Gateway",
    "Gone",
    "HealthBook",
    "HealthState",
    "HungUp",
    "KeyCache",
    "Probes",
    "Replica",
    "ReplicaHealth",
    "Replicas",
    "Scope",
    "choose_dialect",
    "error_body",
    "error_headers",
    "error_status",
    "key_reader",
    "model_card",
    "model_routes",
    "openapi_schema",
    "presented_key",
    "replica_reader",
    "split_mount",
    "tables",
]
