"""Several processes behind one port: all answer alike, one that dies is replaced, and all end together."""

import http.client
import os
import re
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.processes import Process, has_gone, is_running, tree, wait_for
from tests.serving import ADMIN_KEY, Server, clean_environment, galerne, serving, start
from tests.system.test_starting import refused_in_one_line
from tests.upstreams import Reply, says, upstream

WORKERS = 3
CALLS = 60
CHUNKS = 20
STREAMS = 16  # all on one of two workers: once in 30,000 runs


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("workers") / "data", "--workers", str(WORKERS)) as server:
        wait_for(lambda: len(answering(server)) == WORKERS, 30, "every worker tells its figures")
        yield server


def figures(server: Server) -> str:
    return server.call("GET", "/metrics", key=None).body.decode()


def answering(server: Server) -> set[str]:
    return set(re.findall(r'worker="(\d+)"', figures(server)))


def answered_by(server: Server) -> Mapping[str, float]:
    found: dict[str, float] = {}
    for worker, value in re.findall(
        r'^galerne_gateway_requests_total\{worker="(\d+)",.* (\S+)$', figures(server), re.M
    ):
        found[worker] = found.get(worker, 0) + float(value)
    return found


def workers(server: Server) -> list[Process]:
    return [each for each in tree(server.process.pid) if "--worker-of" in each.command]


def test_every_worker_runs_inference_on_the_embedded_engines_and_one_scrape_shows_them_all(many: Server) -> None:
    key, before = many.new_key("all"), sum(answered_by(many).values())
    with ThreadPoolExecutor(4) as callers:
        statuses = list(callers.map(lambda _: many.chat(key=key.secret).status, range(CALLS)))
    assert statuses == [200] * CALLS
    assert len(many.usage(key)) == CALLS
    wait_for(lambda: sum(answered_by(many).values()) == before + CALLS, 20, "the figures, which follow the answers")
    assert set(answered_by(many)) == {"1", "2", "3"}
    text = figures(many)
    helps = re.findall(r"^# HELP (\S+)", text, re.M)
    assert len(helps) == len(set(helps)), "each family is there once"
    installations = "galerne_duty_"  # from the database, no process's own
    samples = [line for line in text.splitlines() if not line.startswith(("#", installations))]
    assert [line for line in samples if 'worker="' not in line] == []
    assert len(re.findall(r"^process_resident_memory_bytes\{", text, re.M)) == WORKERS


def test_the_control_plane_and_readiness_are_the_same_whichever_worker_answers(many: Server) -> None:
    ready = [many.call("GET", "/readyz", key=None) for _ in range(20)]
    assert {answer.status for answer in ready} == {200}
    assert {tuple(answer.json["parts"]) for answer in ready} == {("database", "engine brise", "engine minilm")}
    made = [many.new_key(f"key {number}") for number in range(12)]
    assert [many.chat(key=key.secret).status for key in made] == [200] * 12
    assert many.call("DELETE", f"/v1/admin/api-keys/{made[0].id}").status == 200
    time.sleep(2.1)
    assert {many.chat(key=made[0].secret).status for _ in range(12)} == {401}


def test_a_worker_that_is_killed_is_replaced_and_new_callers_notice_nothing(many: Server) -> None:
    victim = workers(many)[0]
    signal_to(victim, signal.SIGKILL)
    wait_for(lambda: has_gone(victim), 20, "the worker is gone")
    assert {many.chat().status for _ in range(20)} == {200}
    wait_for(lambda: len(workers(many)) == WORKERS - 1, 20, "another one runs")
    wait_for(lambda: len(answering(many)) == WORKERS, 20, "it tells its figures")
    assert {many.chat().status for _ in range(20)} == {200}


def test_what_a_killed_worker_had_delivered_is_metered_by_its_successor(many: Server) -> None:
    key = many.new_key("cut")
    with upstream(slowly()) as other, ThreadPoolExecutor(STREAMS) as callers:
        many.add_upstream("slow", other.url)
        ends = [callers.submit(streamed, many, "slow", key.secret) for _ in range(STREAMS)]
        wait_for(lambda: len(other.received) == STREAMS, 30, "all have begun")
        time.sleep(0.3)
        signal_to(workers(many)[0], signal.SIGKILL)
        whole = sum(end.result().endswith("data: [DONE]\n\n") for end in ends)
    assert 0 < whole < STREAMS
    wait_for(lambda: len(many.usage(key)) == STREAMS, 20, "the rest is recovered")
    rows = many.usage(key)
    assert sum(row["outcome"] == "completed" for row in rows) == whole
    assert all(0 < row["output_tokens"] <= CHUNKS for row in rows)
    wait_for(lambda: len(answering(many)) == WORKERS, 20, "the successor tells its figures")


def test_an_engine_that_is_killed_is_back_for_every_worker(many: Server) -> None:
    for engine in many.engines():
        signal_to(engine, signal.SIGKILL)
    wait_for(lambda: any(not_ready(many) for _ in range(5)), 30, "somebody noticed")
    wait_for(lambda: not any(not_ready(many) for _ in range(20)), 60, "all have their engines back")
    assert {many.chat().status for _ in range(20)} == {200}


def test_the_port_of_a_server_with_workers_is_not_shared_with_another_server(many: Server, tmp_path: Path) -> None:
    port = str(many.host_and_port[1])
    for more in ((), ("--workers", "2")):
        done = galerne("serve", "--no-engines", "--port", port, "--data", str(tmp_path / "data"), *more)
        refused_in_one_line(done, port, "--port")


def test_streams_under_way_at_every_worker_end_whole_after_sigterm(tmp_path: Path) -> None:
    with upstream(slowly()) as other, serving(tmp_path / "data", "--no-engines", "--workers", "2") as server:
        wait_for(lambda: len(answering(server)) == 2, 20, "both tell their figures")
        server.add_upstream("remote", other.url)
        with ThreadPoolExecutor(STREAMS) as callers:
            ends = [callers.submit(streamed, server, "remote") for _ in range(STREAMS)]
            wait_for(lambda: len(other.received) == STREAMS, 30, "all have begun")
            by = set(answered_while_flying(server))
            server.process.send_signal(signal.SIGTERM)
            texts = [end.result() for end in ends]
        assert by == {"1", "2"}
        assert [text.count("word") for text in texts] == [CHUNKS] * STREAMS
        assert all(text.endswith("data: [DONE]\n\n") for text in texts)
        server.process.wait(30)
    assert server.process.returncode == 0


def test_workers_end_with_a_server_that_is_killed(tmp_path: Path) -> None:
    server = start(tmp_path / "data", "--no-engines", "--workers", "2")
    try:
        wait_for(lambda: len(answering(server)) == 2, 20, "both tell their figures")
        left = workers(server)
    finally:
        server.kill()
    assert len(left) == 1
    wait_for(lambda: not is_running(left[0]), 30, "the worker has ended too")
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(server.host_and_port)


def test_a_gateway_refuses_a_database_that_no_server_has_prepared(tmp_path: Path) -> None:
    refused_in_one_line(galerne("gateway", "--port", "0", "--data", str(tmp_path / "data")), "galerne.db")
    assert not (tmp_path / "data" / "galerne.db").exists()
    url = f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}"
    (tmp_path / "empty.db").touch()
    environment = clean_environment(GALERNE_DATABASE_URL=url)
    done = galerne("gateway", "--port", "0", "--data", str(tmp_path / "data"), environment=environment)
    refused_in_one_line(done, "empty.db", "galerne serve")
    assert (tmp_path / "empty.db").stat().st_size == 0


def test_a_gateway_answers_inference_and_the_list_of_models_and_nothing_else(many: Server) -> None:
    with upstream(says("word")) as other, serving(many.data, command="gateway") as gateway:
        many.add_upstream("remote", other.url)
        key = many.new_key("through the gateway")
        for mount in ("", "/openai", "/mistral"):
            body = {"model": "remote", "messages": [{"role": "user", "content": "Hello"}]}
            assert gateway.call("POST", f"{mount}/v1/chat/completions", body, key.secret).status == 200
            assert gateway.call("GET", f"{mount}/v1/models", key=key.secret).status == 200
            assert gateway.call("GET", f"{mount}/v1/models/remote", key=key.secret).status == 200
        assert len(many.usage(key)) == 3
        assert gateway.call("GET", "/v1/models", key=None).status == 401
        assert gateway.chat().status == 503, "it has no engines"
        for path in ("/v1/admin/usage", "/v1/admin/api-keys", "/docs", "/openapi.json", "/"):
            assert gateway.call("GET", path).status == 404
        assert gateway.call("GET", "/healthz", key=None).status == 200
        assert gateway.call("GET", "/readyz", key=None).json == {"status": "ready", "parts": {"database": "ready"}}
        wait_for(lambda: gateway.metric("galerne_gateway_requests_total", status="200") == 3, 20, "three are counted")
        assert "worker=" not in figures(gateway)


def slowly() -> Reply:
    words = says(*["word"] * CHUNKS)

    def reply(handler: BaseHTTPRequestHandler) -> None:
        write = handler.wfile.write

        def pausing(data: bytes) -> int:
            time.sleep(0.05)
            return write(data)

        handler.wfile.write = pausing  # type: ignore[method-assign]
        words(handler)

    return reply


def streamed(server: Server, model: str, key: str | None = ADMIN_KEY) -> str:
    try:
        return server.chat(key=key, model=model, stream=True, max_tokens=CHUNKS).body.decode()
    except (http.client.IncompleteRead, ConnectionError):
        return ""


def answered_while_flying(server: Server) -> list[str]:
    found = re.findall(r'^galerne_gateway_in_flight\{worker="(\d+)"\} (\S+)$', figures(server), re.M)
    return [worker for worker, value in found if float(value)]


def not_ready(server: Server) -> bool:
    return server.call("GET", "/readyz", key=None).status != 200


def signal_to(process: Process, number: signal.Signals) -> None:
    os.kill(process.pid, number)
