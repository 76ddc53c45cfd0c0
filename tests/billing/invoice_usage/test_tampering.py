"""Proofs of real invoices, tampered with as a provider might like to: each is refused, naming what is wrong."""

import json
from collections.abc import Callable
from typing import Any

from galerne.journal import Signer, VerifierKey, latest_checkpoint
from tests.billing.invoice_usage.houses import NOVEMBER_3, Installation, checked, said
from tests.billing.invoice_usage.test_making import DAYS
from tests.billing.proof import test_verification as tampered
from tests.billing.proof.test_verification import Fields

ANYWHERE: dict[Callable[[Fields], None], str] = {
    tampered.change_an_amount: "price",
    tampered.change_an_amount_on_the_invoice: "line",
    tampered.change_a_total: "total",
    tampered.drop_a_request: "complete",
    tampered.repeat_a_request: "order",
    tampered.swap_two_requests: "order",
    tampered.show_another_requests_leaf: "included",
    tampered.move_a_quantity_to_another_line: "tokens",
    tampered.change_a_quantity_on_the_invoice: "line",
    tampered.forge_the_signature: "checkpoint",
    tampered.change_vat: "vat",
    tampered.change_the_tax: "vat",
    tampered.bill_more_tokens_than_were_counted: "tokens",
    tampered.number_it_otherwise: "finalised",
    tampered.give_it_to_another_customer: "owner",
    tampered.leave_out_the_journal: "complete",
    tampered.change_a_proof: "included",
}


async def test_a_real_invoice_that_was_tampered_with_is_refused_by_the_rule_that_it_breaks(
    served: Installation,
) -> None:
    own, other = await served.house.customer("Erdre"), await served.house.customer("Loire")
    await served.serve(own, *DAYS)
    await served.sign()
    async with served.house.database.reading() as session:
        early = await latest_checkpoint(session)
    await served.serve(other, *DAYS)
    await served.serve(own, *DAYS, tier="priority")
    await served.house.close()
    await served.serve(own, *DAYS, at=NOVEMBER_3)
    served.house.clock.current = NOVEMBER_3.replace(month=12)
    await served.house.close("2026-11")
    keys = await served.sign()
    october, november = sorted(await served.house.invoices(own), key=lambda each: each.period or "")
    (others,) = await served.house.invoices(other)
    sound = await served.proof(october.id)
    foreign: Fields = json.loads(await served.proof(others.id))
    later: Fields = json.loads(await served.proof(november.id))

    def after(tamper: Callable[[Fields], object], trusted: list[VerifierKey] | None = None) -> set[str]:
        fields: Fields = json.loads(sound)
        tamper(fields)
        found = checked(json.dumps(fields).encode(), trusted or keys)
        assert not found.proved
        return {each.rule for each in found.findings.kept}

    assert said(checked(sound, keys)) == []
    missed = [tamper.__name__ for tamper, rule in ANYWHERE.items() if rule not in after(tamper)]
    assert missed == []

    def put(name: str, value: Any) -> Callable[[Fields], object]:
        return lambda fields: fields.__setitem__(name, value)

    def rows(fields: Fields) -> Any:
        return fields["requests"]

    assert early is not None
    assert "checkpoint" in after(put("checkpoint", early.note))
    assert "owner" in after(lambda fields: rows(fields)[3].update(leaves=foreign["requests"][3]["leaves"]))
    assert "period" in after(lambda fields: rows(fields).append(later["requests"][0]))
    assert "order" in after(lambda fields: rows(fields).insert(0, later["requests"][0]))
    assert {"owner", "finalised"} <= after(put("invoice", foreign["invoice"]))
    stranger = Signer.generate(keys[0].name).verifier
    assert after(lambda _fields: None, [stranger]) == {"checkpoint"}
    for cut in (len(sound) // 3, len(sound) - 3):
        assert not checked(sound[:cut], keys).proved
