import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from galerne.gateway.cells import MOST_CELLS, MOST_HISTOGRAMS, Buckets, Cells, Family, counting
from galerne.gateway.metrics import FAMILIES, GatewayMetrics, ReplicaLoad
from galerne.gateway.wire.answer import TokenCount

COUNT = TokenCount(10, 5, 21)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> GatewayMetrics:
    return GatewayMetrics(registry)


def test_a_request_is_counted_under_the_names_that_were_always_there(
    registry: CollectorRegistry, metrics: GatewayMetrics
) -> None:
    metrics.in_flight.inc()
    metrics.cancellations.inc()
    metrics.answered("chat.completions", "brise", 200, "priority")
    metrics.answered("chat.completions", "brise", 200, "priority")
    metrics.settled("chat.completions", "brise", COUNT, 40.0, 240.0)
    metrics.committed(3, 0.004)
    value, of = registry.get_sample_value, {"model": "brise"}
    chat = {"endpoint": "chat.completions", **of}
    assert value("galerne_gateway_requests_total", {**chat, "tier": "priority", "status": "200"}) == 2
    assert [value("galerne_gateway_tokens_total", {**of, "class": c}) for c in ("input", "cached", "output")] == [
        *(10, 5, 21)
    ]
    assert value("galerne_gateway_ttft_seconds_bucket", {**of, "le": "0.05"}) == 1
    assert value("galerne_gateway_ttft_seconds_bucket", {**of, "le": "0.025"}) == 0
    assert value("galerne_gateway_duration_seconds_sum", chat) == pytest.approx(0.24)
    assert value("galerne_gateway_time_per_output_token_seconds_sum", of) == pytest.approx(0.01)
    assert value("galerne_gateway_in_flight") == 1
    assert value("galerne_gateway_upstream_cancellations_total") == 1
    assert value("galerne_gateway_settlement_batch_size_sum") == 3
    assert value("galerne_gateway_settlement_seconds_bucket", {"le": "0.004"}) == 1


@pytest.mark.parametrize(("output", "ttft_ms", "total_ms"), [(1, 10.0, 20.0), (0, 10.0, 20.0), (5, None, 20.0)])
def test_an_answer_without_a_second_token_has_no_time_per_token(
    registry: CollectorRegistry, metrics: GatewayMetrics, output: int, ttft_ms: float | None, total_ms: float
) -> None:
    metrics.settled("chat.completions", "brise", TokenCount(1, 0, output), ttft_ms, total_ms)
    name = "galerne_gateway_time_per_output_token_seconds_count"
    assert registry.get_sample_value(name, {"model": "brise"}) == 0


def test_refusals_leases_and_replicas_are_counted_by_what_they_are(
    registry: CollectorRegistry, metrics: GatewayMetrics
) -> None:
    metrics.waited("brise", "standard", 0.3)
    metrics.queue_refused("queue_full")
    metrics.limited("money")
    metrics.lease_acquired("money")
    metrics.lease_refused("tokens")
    metrics.ejected("gpu-1")
    metrics.retried("gpu-1")
    found = {(s.name, *s.labels.values()): s.value for family in registry.collect() for s in family.samples}
    assert found[("galerne_gateway_queue_wait_seconds_count", "brise", "standard")] == 1
    for name, label in (
        ("queue_refusals", "queue_full"),
        ("limit_refusals", "money"),
        ("lease_acquisitions", "money"),
        ("lease_refusals", "tokens"),
        ("replica_ejections", "gpu-1"),
        ("replica_retries", "gpu-1"),
    ):
        assert found[(f"galerne_gateway_{name}_total", label)] == 1


def test_what_is_watched_is_read_when_prometheus_asks(registry: CollectorRegistry, metrics: GatewayMetrics) -> None:
    value = registry.get_sample_value
    assert value("galerne_gateway_settlement_waiting") == 0
    depth = {("brise", "batch"): 4}
    metrics.watch_queue(lambda: depth)
    metrics.watch_leases(lambda: {"money": 7_000_000})
    metrics.watch_replicas(lambda: {"gpu-1": ReplicaLoad(requests=3, tokens=900, healthy=False)})
    metrics.watch_settlement(lambda: 12, lambda: True)
    depth[("brise", "batch")] = 5
    assert value("galerne_gateway_queue_depth", {"model": "brise", "tier": "batch"}) == 5
    assert value("galerne_gateway_lease_outstanding", {"kind": "money"}) == 7_000_000
    assert [
        value(f"galerne_gateway_replica_{of}", {"replica": "gpu-1"}) for of in ("requests", "tokens", "healthy")
    ] == [*(3, 900, 0)]
    assert value("galerne_gateway_settlement_waiting") == 12
    assert value("galerne_gateway_settlement_failing") == 1


def test_the_page_is_one_that_prometheus_reads(registry: CollectorRegistry, metrics: GatewayMetrics) -> None:
    metrics.answered("chat.completions", 'a "model"\\', 200)
    metrics.settled("chat.completions", "brise", COUNT, 40.0, 240.0)
    read = {family.name: family for family in text_string_to_metric_families(generate_latest(registry).decode())}
    for family in FAMILIES:
        assert read[family.name].type == family.kind
        assert read[family.name].documentation == family.meaning
        assert all(set(sample.labels) - {"le"} == set(family.labels) for sample in read[family.name].samples)
    assert any(sample.labels["model"] == 'a "model"\\' for sample in read["galerne_gateway_requests"].samples)


def test_two_gateways_cannot_share_a_registry(registry: CollectorRegistry, metrics: GatewayMetrics) -> None:
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        GatewayMetrics(registry)


@given(st.lists(st.floats(0, 400), max_size=50))
def test_buckets_count_as_those_of_prometheus_client(values: list[float]) -> None:
    bounds, family = (0.005, 0.25, 1, 300), Family("of_ours_seconds", "histogram", "ours")
    theirs = Histogram("of_ours_seconds", "theirs", buckets=bounds, registry=None)
    ours = Buckets(bounds)
    for value in values:
        theirs.observe(value)
        ours.observe(value)
    expected = {
        (s.name, tuple(s.labels.items())): pytest.approx(s.value)
        for m in theirs.collect()
        for s in m.samples
        if not s.name.endswith("_created")
    }
    assert {(s.name, tuple(s.labels.items())): s.value for s in ours.samples(family, {})} == expected


def test_label_sets_are_bounded_and_nothing_goes_uncounted() -> None:
    cells = counting(Family("many", "counter", "many", ("model", "tier")))
    for number in range(MOST_CELLS + 500):
        cells.at(f"model-{number}", "standard").inc()
    samples = list(cells.samples())
    assert len(samples) == MOST_CELLS + 1
    assert sum(sample.value for sample in samples) == MOST_CELLS + 500
    assert [s.value for s in samples if s.labels == {"model": "other", "tier": "other"}] == [500]


def test_what_is_kept_of_models_and_statuses_is_bounded_too(metrics: GatewayMetrics) -> None:
    for number in range(MOST_CELLS + 10):
        metrics.answered("chat.completions", f"model-{number}", 200)
        metrics.settled("chat.completions", f"model-{number}", COUNT, 1.0, 2.0)
    assert len(metrics._statuses) == len(metrics._models) == MOST_CELLS


def test_a_histogram_that_is_over_the_bound_still_counts() -> None:
    cells = Cells(Family("many_seconds", "histogram", "many", ("model",)), lambda: Buckets((1,)))
    for number in range(MOST_HISTOGRAMS + 2):
        cells.at(str(number)).observe(0.5)
    other = [s for s in cells.samples() if s.labels.get("model") == "other" and s.name.endswith("_count")]
    assert [s.value for s in other] == [2]


def test_counting_one_request_costs_microseconds(metrics: GatewayMetrics) -> None:
    def one_request() -> None:
        metrics.in_flight.inc()
        metrics.waited("brise", "standard", 0.002)
        metrics.answered("chat.completions", "brise", 200, "standard")
        metrics.settled("chat.completions", "brise", COUNT, 40.0, 240.0)
        metrics.in_flight.dec()

    best_us = min(timeit.repeat(one_request, number=2_000, repeat=20)) / 2_000 * 1e6
    assert best_us < 20, f"{best_us:.1f} µs; alone on a core it is about 1"
