"""What a subscription does outside billing: the organisation's plan, hence its share and tier, and its limits.

Whoever has no serving subscription has the plan `free`.
"""

from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.subscriptions.catalogue import find_plan_version, plan_version
from galerne.billing.subscriptions.lifecycle import Subscription
from galerne.billing.subscriptions.offers import Offer
from galerne.billing.subscriptions.tables import SubscriptionRow
from galerne.identity import OrganisationChange, change_organisation, operator_in
from galerne.kernel import Clock
from galerne.metering import limit_ids, remove_operator_limit, rule_id, set_operator_limit

FALLBACK_PLAN = "free"


async def apply(session: AsyncSession, row: SubscriptionRow, state: Subscription, clock: Clock) -> None:
    """Give the organisation the plan that `state` entitles it to, and its windows as limits; gateways notice soon.

    A limit that the operator has set on the same quantity and window stays as it is: what was agreed with one customer
    stands above what the plan says for all.
    """
    plan_id = state.item.plan_id if state.serves else FALLBACK_PLAN
    operator = await operator_in(session, state.organisation_id)
    await change_organisation(session, operator, OrganisationChange(plan=plan_id), clock)
    offer, seats = await _offer(session, state), state.item.seats if state.serves else 1
    limits = [window.limit(state.organisation_id, seats) for window in offer.windows]
    wanted = {rule_id(new, None, None): new for new in limits}
    taken = await limit_ids(session, list(wanted)) - set(row.rule_ids)
    for name in sorted(set(row.rule_ids) - set(wanted)):
        if await limit_ids(session, [name]):
            await remove_operator_limit(session, operator, name, clock)
    for name in sorted(set(wanted) - taken):
        await set_operator_limit(session, operator, wanted[name], clock)
    row.rule_ids = sorted(set(wanted) - taken)


async def _offer(session: AsyncSession, state: Subscription) -> Offer:
    if state.serves:
        return (await find_plan_version(session, state.item.plan_id, state.item.version)).offer
    return (await plan_version(session, FALLBACK_PLAN)).offer
