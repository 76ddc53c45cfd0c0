"""Whether lots are what their entries say, and together what their accounts have: statements for `books`."""

from galerne.ledger.lot_tables import LEFT, SUMS

_FOLDED = ", ".join(
    f"sum(CASE kind WHEN '{kind}' THEN amount_nano ELSE 0 END) AS {name}" for kind, name in SUMS.items()
)
_STORED = ", ".join(f"lot.{name}" for name in SUMS.values())
_SUMMED = ", ".join(f"coalesce(folded.{name}, 0)" for name in SUMS.values())
_DIFFER = " OR ".join(f"lot.{name} <> coalesce(folded.{name}, 0)" for name in SUMS.values())

_LOTS = f"""
SELECT lot.id, {_STORED}, {_SUMMED} FROM ledger_lots AS lot
  LEFT JOIN (SELECT lot_id, {_FOLDED} FROM ledger_lot_entries GROUP BY lot_id) AS folded ON folded.lot_id = lot.id
WHERE {_DIFFER} ORDER BY lot.id"""  # noqa: S608  # names of ours

# What the lots have left is the balance, with what was spent and is not burned yet, without money that has no lot yet.
_ACCOUNTS = f"""
SELECT account.id, coalesce(lots.left_nano, 0), account.credits_posted_nano - account.debits_posted_nano,
  account.debits_posted_nano - coalesce(burned.debits_nano, 0), coalesce(loose.nano, 0)
FROM ledger_accounts AS account
  LEFT JOIN ledger_lot_cursors AS burned ON burned.account_id = account.id
  LEFT JOIN (SELECT account_id, sum({LEFT}) AS left_nano FROM ledger_lots GROUP BY account_id) AS lots
    ON lots.account_id = account.id
  LEFT JOIN (
    SELECT credit_account_id, sum(amount_nano) AS nano FROM ledger_transfers AS transfer
    WHERE kind IN ('post', 'settle')
      AND credit_account_id IN (SELECT id FROM ledger_accounts WHERE kind = 'prepaid')
      AND NOT EXISTS (SELECT 1 FROM ledger_lot_entries AS entry WHERE entry.transfer_id = transfer.id)
    GROUP BY credit_account_id
  ) AS loose ON loose.credit_account_id = account.id
WHERE account.kind = 'prepaid' AND coalesce(lots.left_nano, 0) <> account.credits_posted_nano
  - coalesce(burned.debits_nano, 0) - coalesce(loose.nano, 0)
ORDER BY account.id"""  # noqa: S608  # names of ours

_WAITING = """
SELECT account.id, account.debits_posted_nano - burned.debits_nano, coalesce(sum(transfer.amount_nano), 0)
FROM ledger_accounts AS account
  JOIN ledger_lot_cursors AS burned ON burned.account_id = account.id
  LEFT JOIN ledger_transfers AS transfer
    ON transfer.debit_account_id = account.id AND transfer.seq > burned.seq AND transfer.kind IN ('post', 'settle')
GROUP BY account.id, account.debits_posted_nano, burned.debits_nano
HAVING account.debits_posted_nano - burned.debits_nano <> coalesce(sum(transfer.amount_nano), 0)
ORDER BY account.id"""

_BURNED_WHOLE = """
SELECT transfer.id, transfer.amount_nano, coalesce(entries.nano, 0)
FROM ledger_lot_cursors AS burned
  JOIN ledger_transfers AS transfer
    ON transfer.debit_account_id = burned.account_id AND transfer.seq <= burned.seq
    AND transfer.kind IN ('post', 'settle')
  LEFT JOIN (SELECT transfer_id, sum(amount_nano) AS nano FROM ledger_lot_entries GROUP BY transfer_id) AS entries
    ON entries.transfer_id = transfer.id
WHERE transfer.amount_nano <> coalesce(entries.nano, 0) ORDER BY transfer.id"""

_OTHERS_LOT = """
SELECT entry.transfer_id, entry.kind, entry.lot_id FROM ledger_lot_entries AS entry
  JOIN ledger_lots AS lot ON lot.id = entry.lot_id
  JOIN ledger_transfers AS transfer ON transfer.id = entry.transfer_id
WHERE lot.account_id <> CASE WHEN entry.kind IN ('grant', 'restore') THEN transfer.credit_account_id
  ELSE transfer.debit_account_id END
ORDER BY entry.transfer_id"""

LOT_CHECKS = (
    (
        _LOTS,
        "lot {0}: {1} granted, {2} burned, {3} expired, {4} voided, {5} restored; entries {6}, {7}, {8}, {9}, {10}",
    ),
    (_ACCOUNTS, "account {0}: its lots have {1} left; its balance is {2}, {3} is not burned yet, {4} has no lot yet"),
    (_WAITING, "account {0}: {1} is not burned yet, and the transfers that wait make {2}"),
    (_BURNED_WHOLE, "transfer {0}: {1} was spent and {2} taken from lots"),
    (_OTHERS_LOT, "transfer {0}: its {1} is on lot {2} of another account"),
)
"""Statements that find what is wrong, and what to say of each row."""
