"""What is stored of lots: their terms, what was done to them, and how far transfers have been burned onto them.

`ledger_lot_entries` says which transfer did what to which lot; the database adds them up in `ledger_lots`.
"""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKeyConstraint, Index, Integer, String, text
from sqlalchemy.orm import Mapped, mapped_column

from galerne.kernel import Table, UtcTime
from galerne.ledger.chart import LARGEST_NANO
from galerne.ledger.lots import HIGHEST_PRIORITY, LOWEST_PRIORITY, LotChange, LotKind, LotSource

SUMS = {
    each: f"{column}_nano"
    for each, column in zip(LotChange, ("granted", "burned", "expired", "voided", "restored"), strict=True)
}
"""The column of a lot in which entries of a kind are added up."""

LEFT = "granted_nano + restored_nano - burned_nano - expired_nano - voided_nano"
"""What is left of a lot."""

_NOT_BURNS = text("kind <> 'burn'")
_REVERSES = text("reverses_transfer_id IS NOT NULL")


def _one_of(column: str, kinds: type[LotKind] | type[LotSource] | type[LotChange]) -> str:
    return f"{column} IN ({', '.join(repr(str(kind)) for kind in kinds)})"


class LotRow(Table):
    """One lot: `transfer_id` is the posting that brings its money, once it has come; `funding_account_id` from where.

    `replaces_lot_id` names the lot whose burned credit came back after that one had ended.
    """

    __tablename__ = "ledger_lots"
    __table_args__ = (
        CheckConstraint(_one_of("kind", LotKind), name="kind_known"),
        CheckConstraint(_one_of("source", LotSource), name="source_known"),
        CheckConstraint(f"amount_nano BETWEEN 1 AND {LARGEST_NANO}", name="amount_in_range"),
        CheckConstraint(f"priority BETWEEN {HIGHEST_PRIORITY} AND {LOWEST_PRIORITY}", name="priority_in_range"),
        CheckConstraint("expires_at IS NULL OR expires_at > effective_at", name="expires_after_it_begins"),
        CheckConstraint("granted_nano IN (0, amount_nano)", name="granted_whole"),
        CheckConstraint(
            "burned_nano >= 0 AND expired_nano >= 0 AND voided_nano >= 0 AND restored_nano BETWEEN 0 AND burned_nano",
            name="sums_in_range",
        ),
        CheckConstraint(f"{LEFT} >= 0", name="never_negative"),
        ForeignKeyConstraint(["account_id"], ["ledger_accounts.id"], name="fk_ledger_lots_account_id"),
        ForeignKeyConstraint(["funding_account_id"], ["ledger_accounts.id"], name="fk_ledger_lots_funding_account_id"),
        ForeignKeyConstraint(["replaces_lot_id"], ["ledger_lots.id"], name="fk_ledger_lots_replaces_lot_id"),
        Index(None, "account_id"),
    )

    id: Mapped[str] = mapped_column(String, primary_key=True)
    account_id: Mapped[str] = mapped_column(String)
    funding_account_id: Mapped[str] = mapped_column(String)
    transfer_id: Mapped[str] = mapped_column(String)
    kind: Mapped[str] = mapped_column(String)
    amount_nano: Mapped[int] = mapped_column(BigInteger)
    priority: Mapped[int] = mapped_column(Integer)
    effective_at: Mapped[datetime] = mapped_column(UtcTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcTime)
    source: Mapped[str] = mapped_column(String)
    source_ref: Mapped[str | None] = mapped_column(String)
    replaces_lot_id: Mapped[str | None] = mapped_column(String)
    note: Mapped[str] = mapped_column(String)
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    granted_nano: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    burned_nano: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    expired_nano: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    voided_nano: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    restored_nano: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))


class LotEntryRow(Table):
    """What a transfer did to a lot. Of a transfer the sequence is the order in which lots were burned."""

    __tablename__ = "ledger_lot_entries"
    __table_args__ = (
        CheckConstraint(_one_of("kind", LotChange), name="kind_known"),
        CheckConstraint(f"amount_nano BETWEEN 1 AND {LARGEST_NANO}", name="amount_in_range"),
        CheckConstraint("sequence >= 0", name="sequence_not_negative"),
        CheckConstraint(
            "(reverses_transfer_id IS NULL) = (reverses_sequence IS NULL)", name="reverses_an_entry_or_nothing"
        ),
        CheckConstraint("kind <> 'restore' OR reverses_sequence IS NOT NULL", name="restores_what_was_burned"),
        ForeignKeyConstraint(["transfer_id"], ["ledger_transfers.id"], name="fk_ledger_lot_entries_transfer_id"),
        ForeignKeyConstraint(["lot_id"], ["ledger_lots.id"], name="fk_ledger_lot_entries_lot_id"),
        ForeignKeyConstraint(
            ["reverses_transfer_id", "reverses_sequence"],
            ["ledger_lot_entries.transfer_id", "ledger_lot_entries.sequence"],
            name="fk_ledger_lot_entries_reverses",
        ),
        Index(None, "lot_id", sqlite_where=_NOT_BURNS, postgresql_where=_NOT_BURNS),
        Index(None, "reverses_transfer_id", "reverses_sequence", sqlite_where=_REVERSES, postgresql_where=_REVERSES),
        {"sqlite_with_rowid": False},
    )

    transfer_id: Mapped[str] = mapped_column(String, primary_key=True)
    sequence: Mapped[int] = mapped_column(Integer, primary_key=True)
    lot_id: Mapped[str] = mapped_column(String)
    kind: Mapped[str] = mapped_column(String)
    amount_nano: Mapped[int] = mapped_column(BigInteger)
    reverses_transfer_id: Mapped[str | None] = mapped_column(String)
    reverses_sequence: Mapped[int | None] = mapped_column(Integer)


class LotEndRow(Table):
    """A lot that was voided: from then on it is not valid, and what is left of it goes back to where it came from."""

    __tablename__ = "ledger_lot_ends"
    __table_args__ = (ForeignKeyConstraint(["lot_id"], ["ledger_lots.id"], name="fk_ledger_lot_ends_lot_id"),)

    lot_id: Mapped[str] = mapped_column(String, primary_key=True)
    reason: Mapped[str] = mapped_column(String)
    at: Mapped[datetime] = mapped_column(UtcTime)


class LotCursorRow(Table):
    """How far an account's transfers have been burned: up to `seq`, and the sum of the debits until there.

    Whoever moves lots of an account has locked its row.
    """

    __tablename__ = "ledger_lot_cursors"
    __table_args__ = (
        CheckConstraint(f"seq >= 0 AND debits_nano BETWEEN 0 AND {LARGEST_NANO}", name="in_range"),
        ForeignKeyConstraint(["account_id"], ["ledger_accounts.id"], name="fk_ledger_lot_cursors_account_id"),
    )

    account_id: Mapped[str] = mapped_column(String, primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger)
    debits_nano: Mapped[int] = mapped_column(BigInteger)
