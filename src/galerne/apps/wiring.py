"""Which part of the house is handed to which: engines and addresses become the gateway's replicas."""

import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from galerne.engines import EngineSpec
from galerne.engines import Replica as EngineState
from galerne.gateway import HealthBook, Replica
from galerne.kernel import Clock, GalerneError, Settings, SystemClock, read_secret
from galerne.models import Address, EmbeddedModel, Model

_ENGINE_URL = "http://engine/v1"  # the host is a formality: an engine listens on a unix socket

_STALENESS_S = 1.0
_MOST_MODELS = 1_000

_INSIDE = tuple(
    ipaddress.ip_network(network)
    for network in ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)


class EngineStates(Protocol):
    """Whoever knows how the engines of this installation are doing: their supervisor, or a worker that is told."""

    def replicas(self) -> Sequence[EngineState]:
        """How every engine is doing."""
        ...


class InstallationReplicas:
    """The replicas of this installation: its own engines, and the servers that the catalogue names.

    What concerns another server (its key, the models that it lists in `health`) is at most a second old.
    """

    def __init__(
        self,
        settings: Settings,
        engines: EngineStates,
        health: HealthBook | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._engines = engines
        self.health = health or HealthBook()
        self._clock = clock or SystemClock()
        self._known: dict[str, tuple[Model, float, Sequence[Replica]]] = {}

    def of(self, model: Model) -> Sequence[Replica]:
        """The replicas that serve `model`; one that cannot be used says why in `last_error`."""
        if model.engine != "openai":
            return (self._embedded(model),)
        now_s = self._clock.monotonic()
        known = self._known.get(model.id)
        if known is not None and known[0] is model and now_s - known[1] < _STALENESS_S:
            return known[2]
        if len(self._known) >= _MOST_MODELS:
            self._known.clear()
        replicas = tuple(self._external(address) for address in model.addresses)
        self._known[model.id] = (model, now_s, replicas)
        return replicas

    def _embedded(self, model: Model) -> Replica:
        engine = next((each for each in self._engines.replicas() if each.name == model.id), None)
        if engine is None:
            problem = "this server runs no engine for it"
            return Replica(id=model.id, base_url=_ENGINE_URL, ready=False, zone=model.zone or "", last_error=problem)
        return Replica(
            id=model.id,
            base_url=_ENGINE_URL,
            socket=engine.socket,
            ready=engine.ready,
            zone=model.zone or "",
            most_parallel=self._settings.engine_parallel,
            last_error=engine.last_error,
        )

    def _external(self, address: Address) -> Replica:
        problem, api_key = None, None
        if self._settings.offline and not is_inside(address.url):
            problem = "GALERNE_OFFLINE is set and this address is outside"
        else:
            try:
                api_key = read_secret(address.api_key_env, address.api_key_file)
            except GalerneError as error:
                problem = error.message
        return Replica(
            id=address.id,
            base_url=address.url,
            api_key=api_key,
            ready=problem is None,
            zone=address.zone,
            most_parallel=address.most_parallel,
            serves=self.health.serves(address.id),
            last_error=problem,
        )


def is_inside(url: str) -> bool:
    """Whether an address is this machine or a private network (RFC 1918, RFC 4193), asking no name server."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in _INSIDE)


def engine_specs(settings: Settings, embedded: Sequence[EmbeddedModel], run: Path) -> list[EngineSpec]:
    """One engine for each embedded model, with its socket in the folder `run`."""
    return [
        EngineSpec(
            name=each.model.id,
            model_dir=each.folder,
            socket=run / f"{each.model.id}.sock",
            embeddings=each.model.kind == "embedding",
            parallel=settings.engine_parallel,
            context=each.model.context_length,
            threads=settings.engine_threads or None,
            cache=settings.data / "cache",
        )
        for each in embedded
    ]
