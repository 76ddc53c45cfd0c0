"""Sending webhooks: to the address that was checked, signed anew at each attempt, at least once.

No transaction is open while an endpoint is awaited. Killed between an answer and its being written down, the same news
is sent again under the same `webhook-id`, by which a receiver knows it.
"""

import asyncio
import ipaddress
import socket
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from urllib.parse import urlsplit

from galerne.kernel import BadRequest, Clock, Database, get_logger
from galerne.kernel.http_client import Address, Client, Lost, NotConnected
from galerne.kernel.sealing import Sealer
from galerne.notices.delivery import Delivery, DueDelivery, Outcome
from galerne.notices.service import due_deliveries, note_attempt, opened_secrets
from galerne.notices.webhook import IpAddress, address_problem, check_url, signed_headers

_WITHIN_S = 10.0
_RESOLVED_WITHIN_S = 5.0
_AT_ONCE = 8
_NO_HOST = "its host has no address"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Sends what is due. `inside`: also to private networks; `offline`: nowhere else."""

    database: Database
    sealer: Sealer
    clock: Clock
    inside: bool
    offline: bool

    async def deliver_due(self) -> list[Delivery]:
        """Try all that is due once, endpoints beside each other; how each stands then.

        Of an endpoint's deliveries the rest waits once one has failed: who is down is not asked five hundred times.
        """
        async with self.database.reading() as session:
            due = await due_deliveries(session, self.clock.now())
        by_endpoint: dict[str, list[DueDelivery]] = defaultdict(list)
        for each in due:
            by_endpoint[each.delivery.endpoint_id].append(each)
        room = asyncio.Semaphore(_AT_ONCE)
        done = await asyncio.gather(*(self._in_turn(part, room) for part in by_endpoint.values()))
        return [each for part in done for each in part]

    async def _in_turn(self, due: Sequence[DueDelivery], room: asyncio.Semaphore) -> list[Delivery]:
        done: list[Delivery] = []
        async with room:
            for listed in due:
                # A round may take minutes: meanwhile a secret is changed, an endpoint removed, another sends as well.
                async with self.database.reading() as session:
                    standing = await due_deliveries(session, self.clock.now(), only=listed.delivery)
                if not standing:
                    continue
                (each,), began_s = standing, monotonic()
                outcome = await self._attempt(each)
                async with self.database.transaction() as session:
                    stands = await note_attempt(session, each.delivery, outcome, self.clock.now())
                if stands is not None:
                    done.append(stands)
                    _log(stands, int((monotonic() - began_s) * 1000))
                if not outcome.is_success:
                    break
        return done

    async def _attempt(self, due: DueDelivery) -> Outcome:
        headers = signed_headers(opened_secrets(due, self.sealer), due.delivery.news_id, due.body, self.clock.now())
        client = Client()
        try:
            check_url(due.url, inside=self.inside)
            answer = await client.send(await self._address(due.url), _head(due.url, headers), due.body, _WITHIN_S)
            answer.close()
        except BadRequest as refusal:
            return Outcome(None, refusal.message[:200])
        except NotConnected:
            return Outcome(None, "cannot be reached")
        except (Lost, TimeoutError):
            return Outcome(None, f"did not answer within {_WITHIN_S:.0f} s")
        finally:
            client.close()
        return Outcome(answer.status, None if 200 <= answer.status < 300 else f"answered {answer.status}")

    async def _address(self, url: str) -> Address:
        # Whoever names a host could name another address for it a moment later: what was checked is what is asked.
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        host, port = parts.hostname or "", parts.port or (443 if tls else 80)
        found = await _resolved(host, port)
        problems = [problem for each in found if (problem := address_problem(each, inside=self.inside))]
        if self.offline and any(each.is_global for each in found):
            problems.append("GALERNE_OFFLINE is set and it is outside")
        if problems or not found:
            raise BadRequest(problems[0] if problems else _NO_HOST)
        return Address(host, port, tls, ip=str(found[0]))


async def _resolved(host: str, port: int) -> list[IpAddress]:
    try:
        async with asyncio.timeout(_RESOLVED_WITHIN_S):
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError):
        return []
    return [ipaddress.ip_address(str(each[4][0]).partition("%")[0]) for each in found]


def _head(url: str, headers: dict[str, str]) -> bytes:
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    own = {"host": parts.netloc, "content-type": "application/json", "user-agent": "galerne", "connection": "close"}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in {**own, **headers}.items())]
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")


def _log(stands: Delivery, took_ms: int) -> None:
    # Neither the address nor the body: either may hold what is nobody else's business.
    names = ("news_id", "endpoint_id", "topic", "attempts", "status", "problem")
    fields = {name: getattr(stands, name) for name in names}
    log = get_logger("webhooks")
    (log.info if stands.state == "delivered" else log.warning)(f"webhook {stands.state}", took_ms=took_ms, **fields)
