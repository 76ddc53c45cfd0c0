"""Customers whose requests are settled, journalled, rated and invoiced by the code that does so in service."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from galerne.billing import rate_batch
from galerne.billing.invoice_usage import open_proof, proof_lines
from galerne.billing.prices.reading import read_book
from galerne.billing.prices.token_prices import Customer, ModelPrices
from galerne.billing.proof import Checked, verify_invoice
from galerne.governance import SYSTEM, Actor
from galerne.journal import Follower, VerifierKey, append, list_keys
from galerne.kernel import Settings
from galerne.metering import record
from tests.billing.invoices.customers import OCTOBER, House
from tests.flights import ended, flight_of

MINUTE = timedelta(minutes=1)


@dataclass
class Installation:
    """A house that journals what it serves, and signs that."""

    house: House
    settings: Settings
    used: int = 0
    ids: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    async def serve(
        self,
        organisation_id: str,
        *counts: tuple[int, int, int],
        at: datetime = OCTOBER,
        tier: str = "standard",
        model: str = "large",
    ) -> list[str]:
        """Requests of a customer, a minute apart; their ids."""
        async with self.house.database.reading() as session:
            book = await read_book(session)
        rates = ModelPrices(book, Customer(organisation_id, "", "EUR"), model).rates("chat.completions", tier, "", at)
        names: list[str] = []
        for tokens in counts:
            self.used += 1
            moment = at + len(names) * MINUTE
            names.append(f"{int(moment.timestamp() * 1000):012x}7{self.used:019x}")
            flight = flight_of(names[-1], organisation_id, moment, model=model, tier=tier, rates=rates)
            settled = ended(flight, tokens, moment)
            async with self.house.database.transaction() as session:
                await record(session, [settled.event])
                await append(session, [settled.entry])
        return names

    async def rate(self) -> None:
        """Rate what was served."""
        async with self.house.database.transaction() as session:
            await rate_batch(session, self.house.clock, after="")

    async def sign(self) -> Sequence[VerifierKey]:
        """Sign all that has happened; the keys to check it with."""
        await Follower(self.house.database, self.settings, self.house.clock, SYSTEM).checkpoint()
        async with self.house.database.reading() as session:
            return [each.key for each in await list_keys(session)]

    async def proof(self, invoice_id: str, actor: Actor = SYSTEM) -> bytes:
        """The file of an invoice's proof."""
        async with self.house.database.reading() as session:
            opened = await open_proof(session, actor, invoice_id)
        return b"".join([part async for part in proof_lines(self.house.database, opened)])


def installation(house: House, folder: Path) -> Installation:
    """One whose data lie in a folder."""
    settings = Settings().with_data(folder)
    settings.data.mkdir(parents=True, exist_ok=True)
    return Installation(house, settings)


def checked(content: bytes, keys: Sequence[VerifierKey]) -> Checked:
    """What a customer's verifier says."""
    return verify_invoice(io.BytesIO(content), keys)


def said(found: Checked) -> list[str]:
    """What is wrong."""
    return [each.text for each in found.findings.kept]


NOVEMBER_3 = datetime(2026, 11, 3, tzinfo=UTC)
