"""The demonstration's installation: models, prices, an issuer, three customers with keys, subscription and contract."""

from dataclasses import dataclass, field
from datetime import datetime
from random import Random

from sqlalchemy.ext.asyncio import AsyncSession

from galerne.apps.demo.story import CUSTOMERS, FRAME, ISSUER, MODELS, Customer, terms_of
from galerne.billing import NewRates, nano_of, set_rates
from galerne.billing.budgets import set_cost_centre
from galerne.billing.contracts import draft_contract, sign_contract
from galerne.billing.invoices import set_issuer, set_profile
from galerne.billing.subscriptions import Order, subscribe
from galerne.governance import Actor
from galerne.identity import (
    NewKey,
    NewOrganisation,
    NewWorkspace,
    bootstrap,
    create_key,
    create_organisation,
    create_workspace,
    find_installation_admin,
    operator_in,
)
from galerne.kernel import Conflict, Database, Ids, ManualClock, run_in_session
from galerne.ledger import AccountKind, customer_account, house_account, open_account_script
from galerne.models import ExternalModel, add_external

_NOBODY = "http://127.0.0.1:9/v1"


class StoryIds(Ids):
    """Ids whose times are the story's, not the machine's; the rest of them is thrown with its dice."""

    def __init__(self, clock: ManualClock, seed: int) -> None:
        super().__init__()
        self._clock, self._dice, self._tick = clock, Random(seed), 0  # noqa: S311  # a story, not a secret

    def new(self) -> str:
        """A new id, of the time at which the clock stands, behind all before it."""
        self._tick = max(int(self._clock.now().timestamp() * 1000) << 12, self._tick + 1)
        millis, counter = self._tick >> 12, self._tick & 0xFFF
        value = (millis << 80) | (0x7 << 76) | (counter << 64) | (0b10 << 62) | self._dice.getrandbits(62)
        return f"{value:032x}"


@dataclass(slots=True)
class Party:
    """A customer as it is in the installation: its id, the actor for it, and its keys with their workspaces."""

    customer: Customer
    actor: Actor
    keys: list[tuple[str, str | None]] = field(default_factory=list[tuple[str, str | None]])

    @property
    def id(self) -> str:
        """The organisation's id."""
        return self.actor.organisation_id


@dataclass(frozen=True, slots=True)
class Beginning:
    """The operator, the first administrator's key, and the customers by name."""

    operator: Actor
    admin_key: str
    parties: dict[str, Party]


async def begin(database: Database, admin_key: str | None, ids: Ids, clock: ManualClock) -> Beginning:
    """Set everything up as of where the clock stands; `Conflict` if the folder holds an installation already."""
    async with database.transaction() as session:
        secret = await bootstrap(session, ids, clock, admin_key)
        if secret is None:
            raise Conflict("This folder holds an installation already: name an empty one with DEMO=folder.")
        first = await find_installation_admin(session)
        operator = await operator_in(session, first.organisation_id)
        for model, prices in MODELS.items():
            await add_external(session, operator, ExternalModel(name=model, url=_NOBODY), clock)
            nano = [nano_of(price, param="price") for price in prices]
            await set_rates(session, operator, model, _rates(nano), ids, clock)
        await set_issuer(session, operator, ISSUER, clock)
    parties: dict[str, Party] = {}
    for customer in CUSTOMERS:
        async with database.transaction() as session:
            parties[customer.name] = await _party(session, customer, ids, clock)
    return Beginning(operator, secret, parties)


async def _party(session: AsyncSession, customer: Customer, ids: Ids, clock: ManualClock) -> Party:
    new = NewOrganisation(name=customer.name, plan=customer.plan)
    organisation, _ = await create_organisation(session, new, ids, clock)
    party = Party(customer, await operator_in(session, organisation.id))
    for workspace, centre in customer.keys:
        found = None
        if workspace:
            found = await create_workspace(session, party.actor, NewWorkspace(name=workspace), ids, clock)
            await set_cost_centre(session, party.actor, ("workspace", found.id), centre, clock)
        place = None if found is None else found.id
        key = await create_key(session, party.actor, NewKey(name=workspace or "laptop", workspace_id=place), ids, clock)
        party.keys.append((key.row.id, place))
    await set_profile(session, party.actor, customer.profile(organisation.id), clock)
    if customer.prepaid:
        accounts = (
            customer_account(AccountKind.PREPAID, organisation.id, "EUR"),
            house_account(AccountKind.REVENUE, "EUR"),
        )
        for account in accounts:
            await run_in_session(session, open_account_script(account, clock.now()))
    elif customer.plan == "team":
        order = Order(plan_id="team", seats=5, trial=False, time_zone="Europe/Berlin")
        await subscribe(session, party.actor, order, ids, clock)
    else:
        await _contract(session, party.actor, clock.now(), ids, clock)
    return party


async def _contract(session: AsyncSession, actor: Actor, start: datetime, ids: Ids, clock: ManualClock) -> None:
    version = terms_of(start).version()
    draft = await draft_contract(session, actor, FRAME, version.terms, ids, clock)
    await sign_contract(session, actor, draft.contract_id, (draft.version, draft.sha256, "Marie Le Goff"), clock)


def _rates(nano: list[int]) -> NewRates:
    return NewRates(
        currency="EUR",
        input_nano_per_million=nano[0],
        cached_nano_per_million=nano[1],
        output_nano_per_million=nano[2],
    )
