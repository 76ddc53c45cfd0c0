"""Signatures as Standard Webhooks has them, where nothing is sent, and when it is tried again."""

import ipaddress
import json
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from galerne.kernel import BadRequest
from galerne.notices.webhook import (
    address_problem,
    check_url,
    new_secret,
    payload,
    signed_headers,
    tried_again_at,
)

NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)


def test_the_signature_is_the_one_that_the_standard_gives_as_its_example() -> None:
    at = datetime.fromtimestamp(1614265330, UTC)
    headers = signed_headers(
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', at
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_the_standard_s_own_verification_takes_what_any_of_several_secrets_signed() -> None:
    known, stranger = [new_secret() for _ in range(3)], new_secret()
    headers = signed_headers(known, "news", b'{"type":"x"}', datetime.now(UTC))
    assert len(headers["webhook-signature"].split(" ")) == 3
    for secret in known:
        assert Webhook(secret).verify(b'{"type":"x"}', headers) == {"type": "x"}
        with pytest.raises(WebhookVerificationError, match="No matching signature"):
            Webhook(secret).verify(b'{"type":"y"}', headers)
    with pytest.raises(WebhookVerificationError, match="No matching signature"):
        Webhook(stranger).verify(b'{"type":"x"}', headers)


def test_secrets_differ_and_a_body_says_what_happened_when() -> None:
    assert new_secret() != new_secret()
    assert new_secret().startswith("whsec_")
    body = json.loads(payload("budget.reached", NOW, {"percent": 80}))
    assert body == {"type": "budget.reached", "timestamp": "2026-11-23T09:30:00+00:00", "data": {"percent": 80}}


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hook",
        "ftp://example.com/",
        "https://",
        "https:///path",
        "https://user:word@example.com/",
        "https://example.com/#part",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://example.com/a b",
        "https://exämple.com/",
        "https://127.0.0.1/",
        "https://10.1.2.3/",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "https://[fe80::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://0.0.0.0/",
        "https://[broken/",
        "https://example.com/" + "a" * 2000,
    ],
)
def test_where_nothing_is_sent_to(url: str) -> None:
    with pytest.raises(BadRequest):
        check_url(url, inside=False)


def test_where_webhooks_go() -> None:
    for url in ("https://example.com", "https://example.com:8443/a/b?token=1", "https://93.184.216.34/"):
        check_url(url, inside=False)
    for url in ("http://127.0.0.1:9/x", "https://10.0.0.5/", "http://hooks.internal/"):
        check_url(url, inside=True)
    with pytest.raises(BadRequest):
        check_url("http://169.254.169.254/", inside=True)


@pytest.mark.parametrize(
    ("address", "outside", "inside"),
    [
        ("93.184.216.34", True, True),
        ("2606:2800:220:1::1", True, True),
        ("127.0.0.1", False, True),
        ("10.0.0.1", False, True),
        ("172.16.9.9", False, True),
        ("192.168.1.1", False, True),
        ("100.64.0.1", False, True),
        ("::1", False, True),
        ("fd00::1", False, True),
        ("::ffff:192.168.0.1", False, True),
        ("64:ff9b::a00:1", False, True),
        ("2002:a00:1::", False, True),
        ("169.254.169.254", False, False),
        ("::ffff:169.254.169.254", False, False),
        ("64:ff9b::a9fe:a9fe", False, False),
        ("fe80::1", False, False),
        ("224.0.0.1", False, False),
        ("ff02::1", False, False),
        ("0.0.0.0", False, False),
        ("::", False, False),
        ("240.0.0.1", False, False),
    ],
)
def test_which_addresses_are_asked(address: str, outside: bool, inside: bool) -> None:
    found = ipaddress.ip_address(address)
    assert (address_problem(found, inside=False) is None) is outside
    assert (address_problem(found, inside=True) is None) is inside


def test_it_is_tried_for_thirty_hours_ever_more_rarely_and_then_no_more() -> None:
    at, waits = NOW, list[timedelta]()
    for attempts in range(1, 8):
        again = tried_again_at(attempts, at)
        assert again is not None
        waits.append(again - at)
        at = again
    assert waits == sorted(waits)
    assert timedelta(hours=27) < at - NOW < timedelta(hours=31)
    assert tried_again_at(8, at) is None
