"""How the database itself keeps the books: a transfer that is inserted moves its accounts' balances and its hold.

SQLite does it row by row. PostgreSQL does it once a statement, because a batch may hold hundreds of settlements of one
hold between two accounts: each account and each hold is updated once, in the order of their ids, accounts first.
"""

from galerne.journal import refuse_changes
from galerne.ledger.chart import EFFECTS, Effect, TransferKind

_ACCOUNT_TERMS = "id, organisation_id, kind, currency, created_at"
_HOLD_TERMS = "id, debit_account_id, credit_account_id, amount_nano, holder, at"
_ACCOUNT_MOVED = (
    "NEW.debits_posted_nano <> 0 OR NEW.debits_pending_nano <> 0"
    " OR NEW.credits_posted_nano <> 0 OR NEW.credits_pending_nano <> 0"
)
_HOLD_MOVED = "NEW.settled_nano <> 0 OR NEW.released_nano <> 0 OR NEW.closed"
# Whose accounts are not those of a hold that was checked before.
_BETWEEN_ACCOUNTS_OF_ITS_OWN = "kind IN ('post', 'hold')"
_TWO_CURRENCIES = "a transfer is between accounts of one currency"


def guards(dialect_name: str) -> list[str]:
    """The statements that make the three tables keep books; for a migration to run one by one after it made them."""
    keep = _sqlite() if dialect_name == "sqlite" else _postgresql()
    return [*refuse_changes("ledger_transfers", dialect_name), *keep]


def _sqlite() -> list[str]:
    currency = "(SELECT currency FROM ledger_accounts WHERE id = NEW.{side}_account_id)"
    differ = f"{currency.format(side='debit')} <> {currency.format(side='credit')}"
    between = f"WHEN NEW.{_BETWEEN_ACCOUNTS_OF_ITS_OWN} AND {differ}"
    return [
        refuse("ledger_accounts_start", "INSERT ON ledger_accounts", f"WHEN {_ACCOUNT_MOVED}"),
        refuse("ledger_accounts_keep_terms", f"UPDATE OF {_ACCOUNT_TERMS} ON ledger_accounts"),
        refuse("ledger_accounts_stay", "DELETE ON ledger_accounts"),
        refuse("ledger_holds_start", "INSERT ON ledger_holds", f"WHEN {_HOLD_MOVED}"),
        refuse("ledger_holds_keep_terms", f"UPDATE OF {_HOLD_TERMS} ON ledger_holds"),
        refuse("ledger_holds_stay", "DELETE ON ledger_holds"),
        refuse("ledger_transfers_one_currency", "INSERT ON ledger_transfers", between, _TWO_CURRENCIES),
        f"CREATE TRIGGER ledger_holds_transfer AFTER INSERT ON ledger_holds BEGIN {_HOLD_TRANSFER}; END",
        *(_sqlite_effect(kind, effect) for kind, effect in EFFECTS.items()),
    ]


def refuse(name: str, change: str, condition: str = "", reason: str | None = None) -> str:
    """SQLite's trigger that refuses a change."""
    message = reason or name.replace("_", " ")
    return f"CREATE TRIGGER {name} BEFORE {change} {condition} BEGIN SELECT RAISE(ABORT, '{message}'); END"


_HOLD_TRANSFER = """
INSERT INTO ledger_transfers (id, kind, debit_account_id, credit_account_id, amount_nano, hold_id, at)
VALUES (NEW.id, 'hold', NEW.debit_account_id, NEW.credit_account_id, NEW.amount_nano, NEW.id, NEW.at)"""


def _sqlite_effect(kind: TransferKind, effect: Effect) -> str:
    return f"""
    CREATE TRIGGER ledger_transfers_{kind} AFTER INSERT ON ledger_transfers WHEN NEW.kind = '{kind}' BEGIN
      UPDATE ledger_accounts SET {_sqlite_sums("debits", effect)} WHERE id = NEW.debit_account_id;
      UPDATE ledger_accounts SET {_sqlite_sums("credits", effect)} WHERE id = NEW.credit_account_id;
      {_sqlite_hold(kind)}
    END"""  # noqa: S608  # names of ours


def _sqlite_sums(side: str, effect: Effect) -> str:
    parts = (("posted", effect.posted), ("pending", effect.pending))
    columns = [(f"{side}_{part}_nano", "+" if sign > 0 else "-") for part, sign in parts if sign]
    return ", ".join(f"{column} = {column} {sign} NEW.amount_nano" for column, sign in columns)


def _sqlite_hold(kind: TransferKind) -> str:
    if kind not in (TransferKind.SETTLE, TransferKind.RELEASE):
        return ""
    column = "settled_nano" if kind is TransferKind.SETTLE else "released_nano"
    closed = "settled_nano + released_nano + NEW.amount_nano = amount_nano"
    return (
        f"UPDATE ledger_holds SET {column} = {column} + NEW.amount_nano, closed = ({closed})"  # noqa: S608  # names of ours
        " WHERE id = NEW.hold_id;"
    )


def _postgresql() -> list[str]:
    call, new = "EXECUTE FUNCTION", "FOR EACH ROW WHEN"
    refused = f"{call} refuse_change()"
    row, statement = f"FOR EACH ROW {refused}", f"FOR EACH STATEMENT {refused}"
    moving = f"AFTER INSERT ON ledger_transfers REFERENCING NEW TABLE AS moved FOR EACH STATEMENT {call} ledger_move()"
    return [
        f"CREATE TRIGGER ledger_accounts_start BEFORE INSERT ON ledger_accounts {new} ({_ACCOUNT_MOVED}) {refused}",
        f"CREATE TRIGGER ledger_accounts_keep_terms BEFORE UPDATE OF {_ACCOUNT_TERMS} ON ledger_accounts {row}",
        f"CREATE TRIGGER ledger_accounts_stay BEFORE DELETE ON ledger_accounts {row}",
        f"CREATE TRIGGER ledger_accounts_no_truncate BEFORE TRUNCATE ON ledger_accounts {statement}",
        f"CREATE TRIGGER ledger_holds_start BEFORE INSERT ON ledger_holds {new} ({_HOLD_MOVED}) {refused}",
        f"CREATE TRIGGER ledger_holds_keep_terms BEFORE UPDATE OF {_HOLD_TERMS} ON ledger_holds {row}",
        f"CREATE TRIGGER ledger_holds_stay BEFORE DELETE ON ledger_holds {row}",
        f"CREATE TRIGGER ledger_holds_no_truncate BEFORE TRUNCATE ON ledger_holds {statement}",
        function("ledger_transfer_hold", f"{_HOLD_TRANSFER}; RETURN NULL;"),
        f"CREATE TRIGGER ledger_holds_transfer AFTER INSERT ON ledger_holds FOR EACH ROW {call} ledger_transfer_hold()",
        function("ledger_move", _POSTGRESQL_MOVE),
        f"CREATE TRIGGER ledger_transfers_move {moving}",
    ]


def function(name: str, body: str) -> str:
    """PostgreSQL's function for a trigger."""
    return f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$\nBEGIN\n{body}\nEND\n$$"


def _signed(part: str) -> str:
    signs = {kind: getattr(effect, part) for kind, effect in EFFECTS.items()}
    cases = " ".join(f"WHEN '{kind}' THEN {sign} * amount_nano" for kind, sign in signs.items() if sign)
    return f"CASE kind {cases} ELSE 0 END"


# Locked before they are updated, because an UPDATE takes its rows in whatever order it finds them; NO KEY, because
# the foreign keys of others' transfers need not wait.
_POSTGRESQL_MOVE = f"""
  IF EXISTS (
    SELECT 1 FROM moved
      JOIN ledger_accounts AS debit ON debit.id = moved.debit_account_id
      JOIN ledger_accounts AS credit ON credit.id = moved.credit_account_id
    WHERE moved.{_BETWEEN_ACCOUNTS_OF_ITS_OWN} AND debit.currency <> credit.currency
  ) THEN
    RAISE EXCEPTION '{_TWO_CURRENCIES}' USING ERRCODE = 'integrity_constraint_violation';
  END IF;

  PERFORM 1 FROM ledger_accounts
    WHERE id IN (SELECT debit_account_id FROM moved UNION SELECT credit_account_id FROM moved)
    ORDER BY id FOR NO KEY UPDATE;
  PERFORM 1 FROM ledger_holds
    WHERE id IN (SELECT hold_id FROM moved WHERE kind IN ('settle', 'release'))
    ORDER BY id FOR NO KEY UPDATE;

  UPDATE ledger_accounts AS account SET
    debits_posted_nano = account.debits_posted_nano + summed.debits_posted,
    debits_pending_nano = account.debits_pending_nano + summed.debits_pending,
    credits_posted_nano = account.credits_posted_nano + summed.credits_posted,
    credits_pending_nano = account.credits_pending_nano + summed.credits_pending
  FROM (
    SELECT id, sum(debits_posted)::bigint AS debits_posted, sum(debits_pending)::bigint AS debits_pending,
      sum(credits_posted)::bigint AS credits_posted, sum(credits_pending)::bigint AS credits_pending
    FROM (
      SELECT debit_account_id AS id, {_signed("posted")} AS debits_posted, {_signed("pending")} AS debits_pending,
        0 AS credits_posted, 0 AS credits_pending FROM moved
      UNION ALL
      SELECT credit_account_id, 0, 0, {_signed("posted")}, {_signed("pending")} FROM moved
    ) AS sides GROUP BY id
  ) AS summed
  WHERE account.id = summed.id;

  UPDATE ledger_holds AS hold SET
    settled_nano = hold.settled_nano + summed.settled,
    released_nano = hold.released_nano + summed.released,
    closed = (hold.settled_nano + hold.released_nano + summed.settled + summed.released = hold.amount_nano)
  FROM (
    SELECT hold_id, coalesce(sum(amount_nano) FILTER (WHERE kind = 'settle'), 0)::bigint AS settled,
      coalesce(sum(amount_nano) FILTER (WHERE kind = 'release'), 0)::bigint AS released
    FROM moved WHERE kind IN ('settle', 'release') GROUP BY hold_id
  ) AS summed
  WHERE hold.id = summed.hold_id;
  RETURN NULL;
"""  # noqa: S608  # names of ours
