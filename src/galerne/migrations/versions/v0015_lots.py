"""Lots of credit: transfers get the order in which they were recorded, lots are burned in it.

Revision ID: 0015
"""

import sqlalchemy as sa
from alembic import op

from galerne.kernel import UtcTime
from galerne.ledger.tables import after_lots_create as guard_lots

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_LARGEST_NANO = 2**62 - 1
_LEFT = "granted_nano + restored_nano - burned_nano - expired_nano - voided_nano"
_LOT_CHECKS = {
    "kind_known": "kind IN ('paid', 'promotional')",
    "source_known": "source IN ('payment', 'invoice', 'grant', 'correction', 'transfer')",
    "amount_in_range": f"amount_nano BETWEEN 1 AND {_LARGEST_NANO}",
    "priority_in_range": "priority BETWEEN 0 AND 100",
    "expires_after_it_begins": "expires_at IS NULL OR expires_at > effective_at",
    "granted_whole": "granted_nano IN (0, amount_nano)",
    "sums_in_range": (
        "burned_nano >= 0 AND expired_nano >= 0 AND voided_nano >= 0 AND restored_nano BETWEEN 0 AND burned_nano"
    ),
    "never_negative": f"{_LEFT} >= 0",
}
_ENTRY_CHECKS = {
    "kind_known": "kind IN ('grant', 'burn', 'expire', 'void', 'restore')",
    "amount_in_range": f"amount_nano BETWEEN 1 AND {_LARGEST_NANO}",
    "sequence_not_negative": "sequence >= 0",
    "reverses_an_entry_or_nothing": "(reverses_transfer_id IS NULL) = (reverses_sequence IS NULL)",
    "restores_what_was_burned": "kind <> 'restore' OR reverses_sequence IS NOT NULL",
}
_POSTS = sa.text("kind = 'post'")


def upgrade() -> None:
    """Number the transfers in the order in which they were written."""
    dialect_name = op.get_bind().dialect.name
    if dialect_name == "sqlite":
        _number_on_sqlite()
    else:
        _number_on_postgresql()
    op.create_index(op.f("ix_ledger_transfers_debit_account_id_seq"), "ledger_transfers", ["debit_account_id", "seq"])
    op.create_index(
        op.f("ix_ledger_transfers_credit_account_id_seq"),
        "ledger_transfers",
        ["credit_account_id", "seq"],
        sqlite_where=_POSTS,
        postgresql_where=_POSTS,
    )
    _lots()
    _entries()
    _ends_and_cursors()
    for statement in guard_lots(dialect_name):
        op.execute(statement)


def _number_on_postgresql() -> None:
    # Where rows lie says nothing of when: they fill the room of what was undone, and each writer has a page of its own.
    # So their times say it, or money would be spent before it came.
    for statement in (
        "DROP INDEX ix_ledger_transfers_debit_account_id_at",
        "DROP INDEX ix_ledger_transfers_credit_account_id_at",
        "ALTER TABLE ledger_transfers ADD COLUMN seq BIGINT",
        "ALTER TABLE ledger_transfers DISABLE TRIGGER ledger_transfers_append_only",
        (
            "UPDATE ledger_transfers AS transfer SET seq = numbered.seq"
            " FROM (SELECT id, row_number() OVER (ORDER BY at, ctid) AS seq FROM ledger_transfers) AS numbered"
            " WHERE numbered.id = transfer.id"
        ),
        "ALTER TABLE ledger_transfers ENABLE TRIGGER ledger_transfers_append_only",
        "ALTER TABLE ledger_transfers ALTER COLUMN seq SET NOT NULL",
        "ALTER TABLE ledger_transfers ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY",
        (
            "SELECT setval(pg_get_serial_sequence('ledger_transfers', 'seq'), coalesce(max(seq), 0) + 1, false)"
            " FROM ledger_transfers"
        ),
        "ALTER TABLE ledger_transfers DROP CONSTRAINT pk_ledger_transfers",
        "ALTER TABLE ledger_transfers ADD CONSTRAINT uq_ledger_transfers_id UNIQUE (id)",
        "ALTER TABLE ledger_transfers REPLICA IDENTITY USING INDEX uq_ledger_transfers_id",
    ):
        op.execute(statement)


def _number_on_sqlite() -> None:
    # A column can only become the rowid in a new table, and its triggers go with the old one; the one on holds would
    # hinder the renaming.
    connection = op.get_bind()
    triggers = connection.execute(
        sa.text(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
            " AND (tbl_name = 'ledger_transfers' OR name = 'ledger_holds_transfer')"
        )
    ).all()
    (made,) = connection.execute(
        sa.text("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'ledger_transfers'")
    ).scalars()
    for name, _ in triggers:
        op.execute(f"DROP TRIGGER {name}")
    body = made[made.index("(") + 1 :].replace(
        "CONSTRAINT pk_ledger_transfers PRIMARY KEY (id)", "CONSTRAINT uq_ledger_transfers_id UNIQUE (id)"
    )
    op.execute(f"CREATE TABLE numbered (seq INTEGER NOT NULL CONSTRAINT pk_ledger_transfers PRIMARY KEY, {body}")
    columns = "id, kind, debit_account_id, credit_account_id, amount_nano, hold_id, reason, at"
    op.execute(
        f"INSERT INTO numbered (seq, {columns}) SELECT rowid, {columns} FROM ledger_transfers ORDER BY rowid"  # noqa: S608  # names of ours
    )
    op.execute("DROP TABLE ledger_transfers")
    op.execute("ALTER TABLE numbered RENAME TO ledger_transfers")
    released = sa.text("kind = 'release'")
    op.create_index(
        "uq_ledger_transfers_released_once", "ledger_transfers", ["hold_id"], unique=True, sqlite_where=released
    )
    for _, sql in triggers:
        op.execute(sa.text(sql.replace(":", r"\:")))


def _lots() -> None:
    sums = ("granted_nano", "burned_nano", "expired_nano", "voided_nano", "restored_nano")
    op.create_table(
        "ledger_lots",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("funding_account_id", sa.String(), nullable=False),
        sa.Column("transfer_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("amount_nano", sa.BigInteger(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("effective_at", UtcTime(), nullable=False),
        sa.Column("expires_at", UtcTime(), nullable=True),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("source_ref", sa.String(), nullable=True),
        sa.Column("replaces_lot_id", sa.String(), nullable=True),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False) for name in sums),
        *(sa.CheckConstraint(rule, name=op.f(f"ck_ledger_lots_{name}")) for name, rule in _LOT_CHECKS.items()),
        *(
            sa.ForeignKeyConstraint([column], ["ledger_accounts.id"], name=op.f(f"fk_ledger_lots_{column}"))
            for column in ("account_id", "funding_account_id")
        ),
        sa.ForeignKeyConstraint(["replaces_lot_id"], ["ledger_lots.id"], name=op.f("fk_ledger_lots_replaces_lot_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_lots")),
    )
    op.create_index(op.f("ix_ledger_lots_account_id"), "ledger_lots", ["account_id"])


def _entries() -> None:
    op.create_table(
        "ledger_lot_entries",
        sa.Column("transfer_id", sa.String(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("lot_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("amount_nano", sa.BigInteger(), nullable=False),
        sa.Column("reverses_transfer_id", sa.String(), nullable=True),
        sa.Column("reverses_sequence", sa.Integer(), nullable=True),
        *(sa.CheckConstraint(rule, name=op.f(f"ck_ledger_lot_entries_{name}")) for name, rule in _ENTRY_CHECKS.items()),
        sa.ForeignKeyConstraint(
            ["transfer_id"], ["ledger_transfers.id"], name=op.f("fk_ledger_lot_entries_transfer_id")
        ),
        sa.ForeignKeyConstraint(["lot_id"], ["ledger_lots.id"], name=op.f("fk_ledger_lot_entries_lot_id")),
        sa.ForeignKeyConstraint(
            ["reverses_transfer_id", "reverses_sequence"],
            ["ledger_lot_entries.transfer_id", "ledger_lot_entries.sequence"],
            name=op.f("fk_ledger_lot_entries_reverses"),
        ),
        sa.PrimaryKeyConstraint("transfer_id", "sequence", name=op.f("pk_ledger_lot_entries")),
        sqlite_with_rowid=False,
    )
    not_burns, reverses = sa.text("kind <> 'burn'"), sa.text("reverses_transfer_id IS NOT NULL")
    for columns, where in ((["lot_id"], not_burns), (["reverses_transfer_id", "reverses_sequence"], reverses)):
        op.create_index(
            op.f(f"ix_ledger_lot_entries_{'_'.join(columns)}"),
            "ledger_lot_entries",
            columns,
            sqlite_where=where,
            postgresql_where=where,
        )


def _ends_and_cursors() -> None:
    op.create_table(
        "ledger_lot_ends",
        sa.Column("lot_id", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.ForeignKeyConstraint(["lot_id"], ["ledger_lots.id"], name=op.f("fk_ledger_lot_ends_lot_id")),
        sa.PrimaryKeyConstraint("lot_id", name=op.f("pk_ledger_lot_ends")),
    )
    op.create_table(
        "ledger_lot_cursors",
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("debits_nano", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            f"seq >= 0 AND debits_nano BETWEEN 0 AND {_LARGEST_NANO}", name=op.f("ck_ledger_lot_cursors_in_range")
        ),
        sa.ForeignKeyConstraint(["account_id"], ["ledger_accounts.id"], name=op.f("fk_ledger_lot_cursors_account_id")),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_ledger_lot_cursors")),
    )
