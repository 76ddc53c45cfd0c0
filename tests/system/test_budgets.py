"""Two gateway processes, one budget, one limit: together they let pass what one alone would, on either database."""

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler

import aiohttp
import pytest

from galerne.kernel import Database
from tests.serving import Server, serving
from tests.system.tenants import Tenant, add_model, add_tenant, database_of, prepaid, problems, used
from tests.system.test_postgresql import create
from tests.upstreams import says, upstream

CAP = 4
OUTPUT_NANO = 1_000
MOST_NANO = CAP * OUTPUT_NANO
PRICED = (0, 0, OUTPUT_NANO * 1_000_000)
IDLE_S = 3.5
CHAT = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": CAP}
INPUT = 7


class Crowd:
    """An upstream that takes a while, and remembers how many it served at once."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0
        self._lock = threading.Lock()

    def reply(self, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.05)
        with self._lock:
            self.now -= 1
        says("word")(handler)


@dataclass
class Pair:
    """A server and a gateway beside it on the same database, and the upstream that counts."""

    servers: tuple[Server, Server]
    crowd: Crowd

    @property
    def first(self) -> Server:
        """The one that has the command line and the control plane."""
        return self.servers[0]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    data, environment, crowd = tmp_path_factory.mktemp("budgets") / "data", {"GALERNE_LOG_LEVEL": "warning"}, Crowd()
    if request.param == "postgresql":
        address = str(request.getfixturevalue("postgresql_server"))
        asyncio.run(create(address, "budgets"))
        environment["GALERNE_DATABASE_URL"] = address.format(name="budgets")
    with ExitStack() as stack:
        whole, part, slow = (
            stack.enter_context(upstream(reply)) for reply in (says(*["word"] * CAP), says("a", "b"), crowd.reply)
        )
        first = stack.enter_context(serving(data, "--no-engines", environment=environment))
        second = stack.enter_context(serving(data, environment=environment, command="gateway"))
        asyncio.run(_models(first, whole=whole.url, part=part.url, slow=slow.url))
        yield Pair((first, second), crowd)


async def _models(server: Server, **urls: str) -> None:
    async with database_of(server) as database:
        for name, url in urls.items():
            await add_model(database, name, url, PRICED)


@dataclass(frozen=True)
class Answered:
    """What became of one request."""

    status: int
    code: str | None
    retry_after_ms: int | None
    reserved_tokens: int | None


class Callers:
    """As many callers as there are requests, who ask the two gateways in turn."""

    def __init__(self, http: aiohttp.ClientSession, pair: Pair, tenant: Tenant) -> None:
        self._http = http
        self._addresses = itertools.cycle([server.address for server in pair.servers])
        self._headers = {"authorization": f"Bearer {tenant.secret}"}
        self.answered: list[Answered] = []

    @property
    def passed(self) -> int:
        """How many were answered."""
        return sum(each.status == 200 for each in self.answered)

    async def ask(self, model: str) -> Answered:
        """One request to the next gateway."""
        address = f"{next(self._addresses)}/v1/chat/completions"
        async with self._http.post(address, json={**CHAT, "model": model}, headers=self._headers) as response:
            body = await response.json()
            after, cost = (response.headers.get(name) for name in ("retry-after-ms", "x-ratelimit-tokens-query-cost"))
            code = body["error"]["code"] if "error" in body else None
        answered = Answered(
            response.status, code, None if after is None else int(after), None if cost is None else int(cost)
        )
        self.answered.append(answered)
        return answered

    async def at_once(self, count: int, model: str) -> Counter[tuple[int, str | None]]:
        """So many requests concurrently; how many ended how."""
        answers = await asyncio.gather(*(self.ask(model) for _ in range(count)))
        return Counter((each.status, each.code) for each in answers)

    async def until_dry(self, model: str, concurrently: int) -> None:
        """Load until nothing passes any more, though all that was held and not used has had time to come back."""
        refused_since_s = None
        while refused_since_s is None or time.monotonic() - refused_since_s < IDLE_S:
            outcome = await self.at_once(concurrently, model)
            if outcome[(200, None)]:
                refused_since_s = None
            else:
                refused_since_s = refused_since_s or time.monotonic()
                await asyncio.sleep(0.2)


@asynccontextmanager
async def callers(pair: Pair, tenant: Tenant) -> AsyncGenerator[Callers]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        yield Callers(http, pair, tenant)


async def test_of_two_hundred_at_once_a_budget_for_fifty_lets_fifty_pass_and_keeps_nothing_back(pair: Pair) -> None:
    async with database_of(pair.first) as database:
        tenant = await add_tenant(database, credit_nano=50 * MOST_NANO)
        async with callers(pair, tenant) as asking:
            outcome = await asking.at_once(200, "whole")
        assert outcome == {(200, None): 50, (429, "insufficient_quota"): 150}
        assert all(each.retry_after_ms for each in asking.answered if each.status == 429)
        await nothing_pending(database, tenant)
        balance, use = await prepaid(database, tenant), await used(database, tenant)
        assert (use.requests, use.output_tokens) == (50, 50 * CAP)
        assert (balance.debits_posted_nano, balance.credit_nano) == (50 * MOST_NANO, 0)
        assert await problems(database) == []
    checked = pair.first.cli("credits", "check")
    assert (checked.returncode, checked.stdout.partition(":")[0]) == (0, "sound"), checked.stderr


async def test_answers_that_cost_less_than_their_most_are_paid_until_no_further_one_fits(pair: Pair) -> None:
    credit_nano, cost_nano = 120 * MOST_NANO + 500, 2 * OUTPUT_NANO
    async with database_of(pair.first) as database:
        tenant = await add_tenant(database, credit_nano=credit_nano)
        async with callers(pair, tenant) as asking:
            await asking.until_dry("part", concurrently=40)
        assert {(each.status, each.code) for each in asking.answered} == {(200, None), (429, "insufficient_quota")}
        await nothing_pending(database, tenant)
        balance, use = await prepaid(database, tenant), await used(database, tenant)
        assert use.requests == asking.passed
        assert balance.debits_posted_nano == asking.passed * cost_nano == use.output_tokens * OUTPUT_NANO
        assert 0 <= balance.credit_nano < MOST_NANO, "what is left would not have paid for one more"
        assert await problems(database) == []


async def test_tokens_per_day_are_used_up_by_both_and_never_exceeded(pair: Pair) -> None:
    amount = 2_000
    async with database_of(pair.first) as database:
        tenant = await add_tenant(database, quantity="tokens", window="day", amount=amount)
        async with callers(pair, tenant) as asking:
            await asking.until_dry("part", concurrently=40)
        assert {(each.status, each.code) for each in asking.answered} == {(200, None), (429, "rate_limit_exceeded")}
        use = await used(database, tenant)
    assert use.tokens == asking.passed * (INPUT + 2)
    (reserved,) = {each.reserved_tokens for each in asking.answered}
    assert reserved is not None
    assert amount - reserved < use.tokens <= amount, "what is left would not have sufficed for one more"


async def test_requests_per_minute_are_shared_by_both(pair: Pair) -> None:
    amount, began_s = 60, time.monotonic()
    async with database_of(pair.first) as database:
        tenant = await add_tenant(database, quantity="requests", window="minute", amount=amount)
    async with callers(pair, tenant) as asking:
        while time.monotonic() - began_s < 3:
            await asking.at_once(40, "whole")
            await asyncio.sleep(0.2)
        refilled = (time.monotonic() - began_s) * amount / 60
    assert amount - amount // 8 <= asking.passed <= amount + refilled
    refused = [each for each in asking.answered if each.status == 429]
    assert {each.code for each in refused} == {"rate_limit_exceeded"}
    assert all(each.retry_after_ms is not None and each.retry_after_ms <= 60_000 for each in refused)


async def test_requests_at_once_are_shared_by_both(pair: Pair) -> None:
    amount = 6
    async with database_of(pair.first) as database:
        tenant = await add_tenant(database, quantity="concurrent", window="none", amount=amount)
    pair.crowd.most = 0
    async with callers(pair, tenant) as asking:
        for _ in range(15):
            await asking.at_once(20, "slow")
            await asyncio.sleep(0.05)
    assert asking.passed >= 15, "each round lets somebody pass"
    assert 1 < pair.crowd.most <= amount


async def nothing_pending(database: Database, tenant: Tenant) -> None:
    """Return once no hold is left; leases that nobody uses go back after two seconds."""
    end_s = time.monotonic() + 10
    while (await prepaid(database, tenant)).debits_pending_nano:
        assert time.monotonic() < end_s, "a hold that nobody needs is still there"
        await asyncio.sleep(0.1)
