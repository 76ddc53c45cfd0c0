"""Structured creditor references (ISO 11649), which banks carry from the payer to the payee unchanged. Pure."""

import re

_REFERENCE = re.compile(r"RF[0-9]{2}[A-Z0-9]{1,21}")


def creditor_reference(number: str) -> str:
    """The ISO 11649 reference that stands for this invoice's number, with check digits; empty when that is too long."""
    body = re.sub("[^A-Z0-9]", "", number.upper())
    if not 1 <= len(body) <= 21:
        return ""
    return f"RF{98 - _mod97(f'{body}RF00'):02d}{body}"


def is_creditor_reference(value: str) -> bool:
    """Whether this is an ISO 11649 reference with right check digits, written with or without spaces."""
    compact = re.sub(r"\s", "", value).upper()
    return bool(_REFERENCE.fullmatch(compact)) and _mod97(compact[4:] + compact[:4]) == 1


def _mod97(text: str) -> int:
    return int("".join(str(int(character, 36)) for character in text)) % 97
