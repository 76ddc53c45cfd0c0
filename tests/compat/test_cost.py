"""What a request cost, as the official clients ask for it and read it."""

import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from mistralai.client import Mistral
from openai import OpenAI

from tests.compat.conftest import PRICES

HELLO = [{"role": "user", "content": "Tell me about the sea."}]
CHAT = {"model": "brise", "messages": HELLO, "max_tokens": 8}
BODY = {"extra_body": {"usage": {"include": True}}}
HEADER = {"extra_headers": {"x-usage-cost": "true"}}
MISTRALS = {"http_headers": {"x-usage-cost": "true"}}
PRICE_OF = dict(zip(("input", "cached", "output"), map(Decimal, PRICES[1:6:2]), strict=True))
_PRICED_WITHIN_S = 15  # the prices were set when the server started


def openai_chat(openai: OpenAI, _: Mistral) -> Any:
    return openai.chat.completions.create(**CHAT, **BODY).usage


def openai_stream(openai: OpenAI, _: Mistral) -> Any:
    *_, last = openai.chat.completions.create(**CHAT, **HEADER, stream=True)
    return last.usage


def openai_completion(openai: OpenAI, _: Mistral) -> Any:
    return openai.completions.create(model="brise", prompt="The sea", max_tokens=4, **BODY).usage


def openai_embeddings(openai: OpenAI, _: Mistral) -> Any:
    return openai.embeddings.create(model="minilm", input="the sea", **HEADER).usage


def mistral_chat(_: OpenAI, mistral: Mistral) -> Any:
    return mistral.chat.complete(**CHAT, **MISTRALS).usage


def mistral_stream(_: OpenAI, mistral: Mistral) -> Any:
    with mistral.chat.stream(**CHAT, **MISTRALS) as events:
        *_, last = events
    return last.data.usage


def mistral_embeddings(_: OpenAI, mistral: Mistral) -> Any:
    return mistral.embeddings.create(model="minilm", inputs=["the sea"], **MISTRALS).usage


@pytest.mark.parametrize(
    "ask",
    [
        openai_chat,
        openai_stream,
        openai_completion,
        openai_embeddings,
        mistral_chat,
        mistral_stream,
        mistral_embeddings,
    ],
)
def test_a_client_reads_what_its_request_cost(
    openai: OpenAI, mistral: Mistral, ask: Callable[[OpenAI, Mistral], Any]
) -> None:
    usage = ask(openai, mistral)
    until_s = time.monotonic() + _PRICED_WITHIN_S
    while usage.model_dump()["cost_details"]["currency"] is None and time.monotonic() < until_s:
        time.sleep(0.2)
        usage = ask(openai, mistral)
    details = usage.model_dump()["cost_details"]
    assert (details["currency"], details["charged"]) == ("EUR", "0"), "the operator's own organisation has no account"
    lines = {line["token_class"]: line for line in details["lines"]}
    assert sum(line["quantity"] for line in lines.values()) == usage.total_tokens
    exact = sum(line["quantity"] * PRICE_OF["input" if name == "embeddings" else name] for name, line in lines.items())
    assert Decimal(details["cost"]) == exact / 1_000_000
    assert usage.cost == float(details["cost"]) > 0
