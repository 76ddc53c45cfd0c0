"""How the database itself keeps lots: an entry moves its lot's sums, nothing is given back twice or rewritten."""

from galerne.journal import refuse_changes
from galerne.ledger.lot_tables import SUMS
from galerne.ledger.triggers import function, refuse

_TERMS = (
    "id, account_id, funding_account_id, transfer_id, kind, amount_nano, priority, effective_at, expires_at, source, "
    "source_ref, replaces_lot_id, note, created_at"
)
_MOVED = " OR ".join(f"NEW.{column} <> 0" for column in SUMS.values())
_BACKWARDS = "NEW.seq < OLD.seq OR NEW.debits_nano < OLD.debits_nano OR NEW.account_id <> OLD.account_id"
_CURSORS_GO_ON = "CREATE TRIGGER ledger_lot_cursors_go_on BEFORE UPDATE ON ledger_lot_cursors"
_REVERSING = "CREATE TRIGGER ledger_lot_entries_reverse AFTER INSERT ON ledger_lot_entries"
_IS_REVERSING = "NEW.reverses_transfer_id IS NOT NULL"
_TOO_MUCH = "more is given back than was burned"
# What an entry gives back, together with what others did, is no more than the entry that it reverses; that one burned.
_BEYOND = """
(SELECT sum(amount_nano) FROM ledger_lot_entries
  WHERE reverses_transfer_id = NEW.reverses_transfer_id AND reverses_sequence = NEW.reverses_sequence)
> coalesce((SELECT amount_nano FROM ledger_lot_entries
  WHERE transfer_id = NEW.reverses_transfer_id AND sequence = NEW.reverses_sequence AND kind = 'burn'), 0)"""


def lot_guards(dialect_name: str) -> list[str]:
    """The statements that guard the four tables; for a migration to run one by one after it made them."""
    append_only = [
        statement
        for table in ("ledger_lot_entries", "ledger_lot_ends")
        for statement in refuse_changes(table, dialect_name)
    ]
    return append_only + (_sqlite() if dialect_name == "sqlite" else _postgresql())


def _sqlite() -> list[str]:
    return [
        refuse("ledger_lots_start", "INSERT ON ledger_lots", f"WHEN {_MOVED}"),
        refuse("ledger_lots_keep_terms", f"UPDATE OF {_TERMS} ON ledger_lots"),
        refuse("ledger_lots_stay", "DELETE ON ledger_lots"),
        refuse("ledger_lot_cursors_go_on", "UPDATE ON ledger_lot_cursors", f"WHEN {_BACKWARDS}"),
        refuse("ledger_lot_cursors_stay", "DELETE ON ledger_lot_cursors"),
        *(_sqlite_effect(kind, column) for kind, column in SUMS.items()),
        f"{_REVERSING} WHEN {_IS_REVERSING} BEGIN SELECT RAISE(ABORT, '{_TOO_MUCH}') WHERE {_BEYOND}; END",
    ]


def _sqlite_effect(kind: str, column: str) -> str:
    adds = f"UPDATE ledger_lots SET {column} = {column} + NEW.amount_nano WHERE id = NEW.lot_id"  # noqa: S608  # names of ours
    when = f"AFTER INSERT ON ledger_lot_entries WHEN NEW.kind = '{kind}'"
    return f"CREATE TRIGGER ledger_lot_entries_{kind} {when} BEGIN {adds}; END"


def _postgresql() -> list[str]:
    refused = "EXECUTE FUNCTION refuse_change()"
    each, whole = f"FOR EACH ROW {refused}", f"FOR EACH STATEMENT {refused}"
    new = "REFERENCING NEW TABLE AS moved FOR EACH STATEMENT EXECUTE FUNCTION"
    return [
        f"CREATE TRIGGER ledger_lots_start BEFORE INSERT ON ledger_lots FOR EACH ROW WHEN ({_MOVED}) {refused}",
        f"CREATE TRIGGER ledger_lots_keep_terms BEFORE UPDATE OF {_TERMS} ON ledger_lots {each}",
        f"CREATE TRIGGER ledger_lots_stay BEFORE DELETE ON ledger_lots {each}",
        f"CREATE TRIGGER ledger_lots_no_truncate BEFORE TRUNCATE ON ledger_lots {whole}",
        f"{_CURSORS_GO_ON} FOR EACH ROW WHEN ({_BACKWARDS}) {refused}",
        f"CREATE TRIGGER ledger_lot_cursors_stay BEFORE DELETE ON ledger_lot_cursors {each}",
        f"CREATE TRIGGER ledger_lot_cursors_no_truncate BEFORE TRUNCATE ON ledger_lot_cursors {whole}",
        function("ledger_move_lots", _POSTGRESQL_MOVE),
        f"CREATE TRIGGER ledger_lot_entries_move AFTER INSERT ON ledger_lot_entries {new} ledger_move_lots()",
        function("ledger_reverse_burn", _POSTGRESQL_REVERSE),
        f"{_REVERSING} FOR EACH ROW WHEN ({_IS_REVERSING}) EXECUTE FUNCTION ledger_reverse_burn()",
    ]


def _added() -> str:
    return ", ".join(f"{column} = lot.{column} + summed.{column}" for column in SUMS.values())


def _summed() -> str:
    return ", ".join(
        f"coalesce(sum(amount_nano) FILTER (WHERE kind = '{kind}'), 0)::bigint AS {column}"
        for kind, column in SUMS.items()
    )


_POSTGRESQL_MOVE = f"""
  PERFORM 1 FROM ledger_lots WHERE id IN (SELECT lot_id FROM moved) ORDER BY id FOR NO KEY UPDATE;
  UPDATE ledger_lots AS lot SET {_added()}
  FROM (SELECT lot_id, {_summed()} FROM moved GROUP BY lot_id) AS summed
  WHERE lot.id = summed.lot_id;
  RETURN NULL;
"""  # noqa: S608  # names of ours

_POSTGRESQL_REVERSE = f"""
  IF {_BEYOND} THEN
    RAISE EXCEPTION '{_TOO_MUCH}' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NULL;
"""
