"""The data plane as one ASGI application: admit, relay, settle, answer; nothing here decides what any of these does."""

import asyncio
from functools import partial
from typing import Any, cast

from prometheus_client import CollectorRegistry

from galerne.gateway.admission import PATHS, Admission, Admitted, Arrival
from galerne.gateway.caller import AsgiCaller, Caller, HungUp, Receive, Scope, Send
from galerne.gateway.catalogue import Catalogue, model_reader
from galerne.gateway.commit import Commit, commit_script
from galerne.gateway.cost import cost_fields, used_fields
from galerne.gateway.desk import GatewayDesk
from galerne.gateway.dialect import MOUNTS, choose_dialect, split_mount
from galerne.gateway.dispatch import Dispatcher
from galerne.gateway.exchange import Engines, StreamWriter, Unpriced, context_reached, stream_writer
from galerne.gateway.flights import FlightFile
from galerne.gateway.keys import KeyCache, key_reader
from galerne.gateway.metrics import GatewayMetrics
from galerne.gateway.notes import Notes
from galerne.gateway.progress import alive_script
from galerne.gateway.recovery import recover_script, recovered_flights
from galerne.gateway.reservations import Answers, Reservations, Reserved
from galerne.gateway.routing import Replicas
from galerne.gateway.settled import Settled
from galerne.gateway.settlement import Settlements, Waits
from galerne.gateway.tally import Tally
from galerne.gateway.telemetry import open_telemetry
from galerne.gateway.terms import TermsCache, terms_reader
from galerne.gateway.verdict import InternalError, Verdict, cancelled, failed, settled
from galerne.gateway.wire.answer import Fields
from galerne.gateway.wire.errors import error_body, error_headers, error_status
from galerne.gateway.wire.limit_headers import limit_headers
from galerne.kernel import (
    Clock,
    Database,
    GalerneError,
    Ids,
    Settings,
    Unavailable,
    get_logger,
    invariant,
    open_reader,
    open_writer,
    place_of,
)

__all__ = ["INFERENCE_PATHS", "Gateway"]

INFERENCE_PATHS = tuple(mount + path.removeprefix("/v1/") for mount in ("/v1/", *MOUNTS) for path in PATHS)
"""Every path that a gateway answers, mounted or not."""

_DRAIN_S = 30.0
_SETTLE_S = 10.0
_TICK_S = 1.0
_UPKEEP_SHARE = 6
_RETRY_IN_OUTAGE_S = 5.0
_RETRY_WHEN_FULL_S = 1.0
_JSON = (b"content-type", b"application/json")
_STREAM = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # a proxy in front must not hold chunks back
)


class MethodNotAllowed(GalerneError):
    """The path is known, the method is not."""

    status = 405
    code = "method_not_allowed"


class Gateway:
    """Answers the inference paths of both dialects. `start()` before the first request, `stop()` after the last.

    `reader` is for small reads of whoever else is in this process: who calls, what a quote needs; `replicas` are where
    models run, and how this process sees them doing.
    """

    def __init__(
        self,
        *,
        database: Database,
        settings: Settings,
        clock: Clock,
        ids: Ids,
        replicas: Replicas,
        registry: CollectorRegistry,
    ) -> None:
        self._clock = clock
        self._ids = ids
        self._settings = settings
        self._metrics = GatewayMetrics(registry)
        self.replicas = replicas
        self._dispatcher = Dispatcher(replicas, settings, clock, self._metrics)
        self._holder = ids.new()
        self._writer = open_writer(database.url)
        self.reader = open_reader(database.url)
        self._reservations = Reservations(
            self._holder, ids, clock, self._metrics, lease_s=settings.lease_s, wake=lambda: self._settlements.wake()
        )
        self._admission = self._admitting()
        self._log = get_logger("gateway")
        self._telemetry = open_telemetry(offline=settings.offline)
        self._notes = Notes(self._metrics, self._telemetry, clock)
        self._working: set[asyncio.Task[Any]] = set()
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False
        self._upkeep: asyncio.Task[None] | None = None

    def _admitting(self) -> Admission:
        settings, clock, outage_s, reader = self._settings, self._clock, self._settings.outage_s, self.reader
        keys = KeyCache(key_reader(reader, clock), clock, staleness_s=settings.key_staleness_s, outage_s=outage_s)
        catalogue = Catalogue(model_reader(reader), clock, outage_s=outage_s)
        terms = TermsCache(terms_reader(reader, settings, clock), clock, outage_s=outage_s)
        return Admission(keys, catalogue, terms, self._reservations, settings)

    def handles(self, path: str) -> bool:
        """Whether `path` is one of the inference paths, mounted or not."""
        return path in INFERENCE_PATHS

    @property
    def settlement_failing(self) -> bool:
        """Whether use cannot be written to the database now: not ready, though alive."""
        return self._settlements.failing

    async def start(self) -> None:
        """Begin to take requests; what an earlier run could not record is recorded first."""
        self._draining = False
        folder = self._settings.data
        left = recovered_flights(folder, self._clock.now())
        self._flights = FlightFile(folder, self._holder)
        self._engines = Engines(self._dispatcher, self._flights, self._settings, self._clock)
        desk = GatewayDesk(self._holder, self._reservations, self._flights, self._clock, self._metrics)
        waits = Waits(outage_s=self._settings.outage_s)
        self._settlements = Settlements(self._write, desk, self._clock, folder, waits=waits)
        self._metrics.watch_settlement(lambda: len(self._settlements), lambda: self._settlements.failing)
        self._settlements.start(left)
        self._upkeep = asyncio.create_task(self._keep_up(desk), name="upkeep")

    async def stop(self, drain_s: float = _DRAIN_S, settle_s: float = _SETTLE_S) -> None:
        """Refuse new requests, let those under way end within `drain_s`, cancel the rest, and settle all of them.

        What the database does not take within `settle_s` is kept in a file in the data folder for the next start.
        """
        self._draining = True
        try:
            async with asyncio.timeout(drain_s):
                await self._idle.wait()
        except TimeoutError:
            for task in tuple(self._working):
                task.cancel()
            await self._idle.wait()
        if self._upkeep is not None:
            self._upkeep.cancel()
        await self._settlements.stop(settle_s)
        self._engines.close()
        self._flights.close()
        await self._writer.close()
        await self.reader.close()
        await self._telemetry.close()

    async def _write(self, commit: Commit) -> Answers:
        return (await self._writer.run([commit_script(commit)]))[0]

    async def _keep_up(self, desk: GatewayDesk) -> None:
        """About once a second: leases and progress; more rarely: say that this process lives, and recover the dead."""
        rounds = 0
        every = max(1, int(self._settings.lease_s / _UPKEEP_SHARE / _TICK_S))
        while True:
            desk.tick()
            if rounds % every == 0:
                await self._look_after_the_dead()
            rounds += 1
            await asyncio.sleep(_TICK_S)

    async def _look_after_the_dead(self) -> None:
        now = self._clock.now()
        now_ms = int(now.timestamp() * 1000)
        silent_before_ms = now_ms - int(self._settings.lease_s * 1000)
        try:
            await self._settlements.run(lambda: alive_script(self._holder, now_ms))
            dealt_with: int = await self._settlements.run(lambda: recover_script(self._holder, now, silent_before_ms))
        except Exception as error:  # noqa: BLE001 - it is tried again; settling goes on meanwhile, and tells of outages
            self._log.error("recovery_failed", error=place_of(error))
            return
        if dealt_with:
            self._log.warning("recovered", holds_and_requests=dealt_with)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        invariant(scope["type"] == "http", "the gateway answers HTTP only")
        await self.answer(AsgiCaller(scope, receive, send))

    async def answer(self, caller: Caller) -> None:
        """Answer one request on a path that this gateway handles; raises nothing but a cancellation."""
        mount, path = split_mount(caller.path)
        clock = self._clock
        arrival = Arrival(
            caller=caller,
            endpoint=PATHS[path],
            mount=mount,
            request_id=self._ids.new(),
            started_at=clock.now(),
            started_s=clock.monotonic(),
            dialect=choose_dialect(mount, None, caller.user_agent),
        )
        self._in_flight += 1
        self._idle.clear()
        self._metrics.in_flight.inc()
        try:
            await self._answer_safely(arrival)
            if arrival.stopped:
                raise asyncio.CancelledError
        finally:
            self._metrics.in_flight.dec()
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    async def _answer_safely(self, arrival: Arrival) -> None:
        try:
            await self._answer(arrival)
        except HungUp:
            pass  # all was settled before the last part was sent; whoever reads nothing need not hear more
        except Exception as error:  # noqa: BLE001 - uvicorn would log local variables, keys and prompts among them
            await self._own_up(arrival, error)

    async def _own_up(self, arrival: Arrival, defect: Exception) -> None:
        """Log where `defect` was and end the answer with an error, unless its end is already on its way."""
        self._log.error("defect", request_id=arrival.request_id, cause=place_of(defect))
        if arrival.caller.ended:
            return
        try:
            await self._refuse(arrival, InternalError("Something went wrong here."))
        except HungUp:
            pass  # nobody is left to be told
        except Exception as error:  # noqa: BLE001 - uvicorn would log variables of this too
            self._log.error("defect", request_id=arrival.request_id, cause=place_of(error))

    async def _answer(self, arrival: Arrival) -> None:
        try:
            self._refuse_if_busy(arrival)
            admitted = await self._admission.admit(arrival)
        except GalerneError as error:
            await self._refuse(arrival, error)
            self._notes.refused(arrival, error)
            return
        tally = Tally(admitted.prompt_bytes, arrival.started_s)
        if self._notes.traces_content(admitted):
            tally.texts = {}
        try:
            verdict = await self._converse(admitted, tally)
            end = self._draw_up(admitted, tally, verdict)
        except Exception as error:  # noqa: BLE001 - a defect must neither keep what was reserved nor leave a stream open
            self._reservations.undo(admitted.reserved)
            if tally.slot is not None:
                tally.slot.end()
            await self._own_up(arrival, error)
            self._notes.refused(arrival, None, place_of(error))
            return
        await self._conclude(admitted, tally, verdict, end)

    def _refuse_if_busy(self, arrival: Arrival) -> None:
        if arrival.caller.method != "POST":
            raise MethodNotAllowed(f"Use POST for {arrival.caller.path}.")
        if self._draining:
            raise Unavailable("This server is shutting down.", code="shutting_down", retry_after_s=_RETRY_WHEN_FULL_S)
        if self._settlements.refusing:
            raise Unavailable(
                "The database has been away for too long.",
                code="database_unavailable",
                retry_after_s=_RETRY_IN_OUTAGE_S,
            )
        if self._settlements.full:
            raise Unavailable("Too many requests wait to be recorded.", retry_after_s=_RETRY_WHEN_FULL_S)

    async def _converse(self, admitted: Admitted, tally: Tally) -> Verdict:
        """Ask the engine; the client's hang-up cancels that at once, and so does a stop that waited long enough."""
        task = cast(asyncio.Task[Any], asyncio.current_task())
        gone = admitted.arrival.caller.gone
        gone.callback = task.cancel
        self._working.add(task)
        try:
            if gone.happened:
                return Verdict("cancelled", hung_up=True)
            return Verdict("completed", await self._work(admitted, tally))
        except asyncio.CancelledError:
            task.uncancel()
            if tally.reached:
                self._metrics.cancellations.inc()
            # What was used must still be settled when the server gives up on us; __call__ raises this again afterwards.
            admitted.arrival.stopped = not gone.happened and not self._draining
            return cancelled(hung_up=gone.happened)
        except Exception as error:  # noqa: BLE001 - whatever it was, what was used is settled and the client told
            return failed(error, hung_up=gone.happened)
        finally:
            gone.callback = None
            self._working.discard(task)

    async def _work(self, admitted: Admitted, tally: Tally) -> bytes | Unpriced | StreamWriter:
        if admitted.streamed:
            headers = (*self._headers(admitted.arrival), *_STREAM)
            return await self._engines.stream(admitted, tally, admitted.arrival.caller, headers)
        if admitted.face.endpoint == "embeddings":
            return await self._engines.embed(admitted, tally)
        return await self._engines.whole(admitted, tally)

    def _draw_up(self, admitted: Admitted, tally: Tally, verdict: Verdict) -> Settled:
        total_ms = (self._clock.monotonic() - admitted.arrival.started_s) * 1000
        return settled(admitted, tally, verdict, at=self._clock.now(), total_ms=total_ms)

    async def _conclude(self, admitted: Admitted, tally: Tally, verdict: Verdict, end: Settled) -> None:
        """Settle, then send what says that all went well, or what went wrong."""
        error, told = verdict.error, None
        if tally.reached:
            self._reservations.settle(admitted.reserved, _total(end), end.cost_nano)
            if tally.slot is not None:
                tally.slot.land()
            try:
                committed = self._settlements.begin(end, partial(self._written, admitted.reserved, end))
                if error is None and not admitted.streamed:
                    await asyncio.sleep(0)  # the disk has begun, and needs nobody meanwhile
                    admitted.arrival.headers = self._headers(admitted.arrival)
                told = await committed
                if tally.slot is not None:
                    tally.slot.end()
            except GalerneError as failed_to_record:
                error = failed_to_record
        else:
            self._reservations.undo(admitted.reserved)
        if verdict.outcome != "cancelled" or not verdict.hung_up:
            await self._finish(admitted, tally, verdict, error, told)
        self._notes.ended(admitted, tally, end, error, verdict.cause)

    def _written(self, reserved: Reserved, end: Settled) -> None:
        self._reservations.written(reserved, end.spent, end.paid_nano)

    async def _finish(
        self, admitted: Admitted, tally: Tally, verdict: Verdict, error: GalerneError | None, told: Settled | None
    ) -> None:
        arrival = admitted.arrival
        caller = arrival.caller
        cost = cost_fields(admitted.terms.prices, told) if admitted.face.include_cost and told is not None else None
        if error is not None:
            await self._refuse(
                arrival, error, None if told is None or cost is None else used_fields(admitted.face, told, cost)
            )
        elif isinstance(verdict.result, bytes | Unpriced):
            body = verdict.result if isinstance(verdict.result, bytes) else verdict.result.priced(cost or {})
            await caller.respond(200, (*(arrival.headers or self._headers(arrival)), _JSON), body)
        elif verdict.result is not None:
            reached = context_reached(tally, admitted.cap, getattr(admitted.body, "n", None) or 1)
            if not caller.status:
                caller.begin(200, (*self._headers(arrival), *_STREAM))
            await caller.finish(verdict.result.finish(tally.count(), context_reached=reached, cost=cost))

    async def _refuse(self, arrival: Arrival, error: GalerneError, usage: Fields | None = None) -> None:
        caller, dialect = arrival.caller, arrival.dialect
        if caller.status and arrival.face is not None:
            await caller.finish(stream_writer(arrival.face).fail(error, usage))
            return
        headers = [*self._headers(arrival), _JSON, *error_headers(error, dialect)]
        if error.status == 405:
            headers.append((b"allow", b"POST"))
        if error.status == 413:
            await caller.skip_body()
        if error.status in (408, 413):
            headers.append((b"connection", b"close"))  # what skip_body left unread would pass for the next request
        await caller.respond(error_status(error, dialect), headers, error_body(error, dialect))

    def _headers(self, arrival: Arrival) -> list[tuple[bytes, bytes]]:
        request_id = arrival.request_id.encode()
        headers = [(b"x-request-id", request_id), (b"mistral-correlation-id", request_id)]
        if arrival.terms is None:
            return headers
        return headers + limit_headers(self._reservations.standings(arrival.terms), arrival.cost)


def _total(end: Settled) -> int:
    event = end.event
    return event.input_tokens + event.cached_tokens + event.output_tokens
