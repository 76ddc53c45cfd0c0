"""Whether the books are what their transfers say: everything that is kept is derived once more and compared.

Each check is one statement, so that it sees one state of the database while others write.
"""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.ledger.chart import EFFECTS
from galerne.ledger.lot_books import LOT_CHECKS


def _folded(part: str) -> str:
    signs = {kind: getattr(effect, part) for kind, effect in EFFECTS.items()}
    cases = " ".join(f"WHEN '{kind}' THEN {sign} * amount_nano" for kind, sign in signs.items() if sign)
    return f"CASE kind {cases} ELSE 0 END"


_POSTED, _PENDING = _folded("posted"), _folded("pending")

_BALANCES = f"""
SELECT account.id, debits_posted_nano, debits_pending_nano, credits_posted_nano, credits_pending_nano,
  coalesce(debits_posted, 0), coalesce(debits_pending, 0), coalesce(credits_posted, 0), coalesce(credits_pending, 0)
FROM ledger_accounts AS account LEFT JOIN (
  SELECT id, sum(debits_posted) AS debits_posted, sum(debits_pending) AS debits_pending,
    sum(credits_posted) AS credits_posted, sum(credits_pending) AS credits_pending
  FROM (
    SELECT debit_account_id AS id, {_POSTED} AS debits_posted, {_PENDING} AS debits_pending,
      0 AS credits_posted, 0 AS credits_pending FROM ledger_transfers
    UNION ALL SELECT credit_account_id, 0, 0, {_POSTED}, {_PENDING} FROM ledger_transfers
  ) AS sides GROUP BY id
) AS folded ON folded.id = account.id
WHERE debits_posted_nano <> coalesce(debits_posted, 0) OR debits_pending_nano <> coalesce(debits_pending, 0)
  OR credits_posted_nano <> coalesce(credits_posted, 0) OR credits_pending_nano <> coalesce(credits_pending, 0)
ORDER BY account.id"""  # noqa: S608  # names of ours

_HOLDS = """
SELECT hold.id, amount_nano, settled_nano, released_nano,
  coalesce(held, 0), coalesce(settled, 0), coalesce(released, 0)
FROM ledger_holds AS hold LEFT JOIN (
  SELECT hold_id, sum(CASE kind WHEN 'hold' THEN amount_nano ELSE 0 END) AS held,
    sum(CASE kind WHEN 'settle' THEN amount_nano ELSE 0 END) AS settled,
    sum(CASE kind WHEN 'release' THEN amount_nano ELSE 0 END) AS released
  FROM ledger_transfers WHERE hold_id IS NOT NULL GROUP BY hold_id
) AS folded ON folded.hold_id = hold.id
WHERE amount_nano <> coalesce(held, 0) OR settled_nano <> coalesce(settled, 0)
  OR released_nano <> coalesce(released, 0)
ORDER BY hold.id"""

_CURRENCIES = """
SELECT currency, sum(debits_posted_nano), sum(credits_posted_nano), sum(debits_pending_nano), sum(credits_pending_nano)
FROM ledger_accounts GROUP BY currency
HAVING sum(debits_posted_nano) <> sum(credits_posted_nano) OR sum(debits_pending_nano) <> sum(credits_pending_nano)
ORDER BY currency"""

_MIXED = """
SELECT transfer.id, debit.currency, credit.currency FROM ledger_transfers AS transfer
  JOIN ledger_accounts AS debit ON debit.id = transfer.debit_account_id
  JOIN ledger_accounts AS credit ON credit.id = transfer.credit_account_id
WHERE debit.currency <> credit.currency ORDER BY transfer.id"""

_OVERDRAWN = """
SELECT id FROM ledger_accounts WHERE debits_posted_nano + debits_pending_nano > credits_posted_nano + credit_limit_nano
ORDER BY id"""

_CHECKS = (
    (_BALANCES, "account {0}: its balances are {1}, {2}, {3}, {4}, its transfers make {5}, {6}, {7}, {8}"),
    (_HOLDS, "hold {0}: it says {1} held, {2} settled, {3} released, its transfers {4}, {5}, {6}"),
    (_CURRENCIES, "{0}: posted debits are {1} and credits {2}, pending debits {3} and credits {4}"),
    (_MIXED, "transfer {0}: from {1} to {2}"),
    (_OVERDRAWN, "account {0}: it is overdrawn"),
    *LOT_CHECKS,
)


async def check_books(session: AsyncSession, most: int = 100) -> list[str]:
    """What is wrong with the books, a line for each finding, at most so many of a sort; empty when they are sound.

    It reads every transfer: for a daily job or an operator, not for a request.
    """
    problems: list[str] = []
    for sql, message in _CHECKS:
        found = (await session.execute(text(f"{sql} LIMIT {most:d}"))).all()
        problems += [message.format(*row) for row in found]
    return problems
