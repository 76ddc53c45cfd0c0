"""Kill -9 of an engine and of the whole server: who is told, what is kept, and how it goes on."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from openai import APIError, OpenAI

from tests.processes import is_running, tree, wait_for
from tests.serving import Server, serving, start
from tests.system.test_traffic import brise_of
from tests.system.traffic import at_once, embedding, session, stream, whole

STORY = {"messages": [{"role": "user", "content": "Tell me a long story."}], "max_tokens": 1500}


def test_an_engine_killed_in_mid_stream_ends_it_with_an_error_and_comes_back(server: Server) -> None:
    key = server.new_key("killed engine")
    engine = brise_of(server)
    with OpenAI(base_url=f"{server.address}/v1", api_key=key.secret, max_retries=0) as client:
        chunks = client.chat.completions.create(model="brise", stream=True, extra_body={"min_tokens": 1500}, **STORY)
        received = [next(chunks) for _ in range(4)]
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(APIError) as failed:
            received += list(chunks)
    assert failed.value.body is not None, "an error event, not merely a broken connection"
    assert "Traceback" not in str(failed.value.body)
    (row,) = server.usage(key)
    assert (row["outcome"], row["partial"]) == ("failed", True)
    texts = sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in received)
    assert texts <= row["output_tokens"] < 1500
    with OpenAI(base_url=f"{server.address}/v1", api_key=key.secret, max_retries=10) as patient:
        answer = patient.chat.completions.create(model="brise", **{**STORY, "max_tokens": 2}, timeout=30)
    assert answer.choices[0].message.role == "assistant"
    assert brise_of(server).pid != engine.pid
    assert not is_running(engine)


async def test_nothing_that_was_answered_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    server = start(tmp_path / "data")
    try:
        server.wait_ready()
        key = server.new_key("answered")
        everyone = tree(server.process.pid)
        async with session(server, key.secret) as http:
            kinds = [stream, whole, embedding]
            answered = await at_once(*(kinds[number % 3](http) for number in range(30)))
            under_way = asyncio.create_task(stream(http, max_tokens=1500, min_tokens=1500))
            await asyncio.sleep(0.2)
            server.kill()
            with pytest.raises(aiohttp.ClientError):
                await under_way
    finally:
        server.kill()
    assert {one.status for one in answered} == {200}
    assert len([process for process in everyone if process.is_engine]) == 2
    wait_for(lambda: not any(map(is_running, everyone)), 15, "engines end with their server")
    verified = server.cli("journal", "verify", "--json")
    assert verified.returncode == 0, verified.stderr
    with serving(tmp_path / "data") as again:
        rows = {row["id"] for row in again.usage(key)}
        assert {one.request_id for one in answered} <= rows
        assert again.chat(key=key.secret).status == 200


def test_sigint_ends_the_server_in_good_order(tmp_path: Path) -> None:
    server = start(tmp_path / "data", "--no-engines")
    try:
        server.wait_ready()
        everyone = tree(server.process.pid)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(40) == 0
    finally:
        server.kill()
    assert [left for left in everyone if is_running(left)] == []
    assert "Traceback" not in server.logged()


def test_sigterm_lets_a_stream_under_way_end_or_say_why(own_server: Server) -> None:
    script = (
        "import sys; from openai import OpenAI\n"
        "c = OpenAI(base_url=sys.argv[1], api_key=sys.argv[2], max_retries=0)\n"
        "s = c.chat.completions.create(model='brise', stream=True, max_tokens=300, extra_body={'min_tokens': 300},"
        " messages=[{'role': 'user', 'content': 'Story'}])\n"
        "n = 0\n"
        "for chunk in s:\n"
        "    n += 1\n"
        "    if n == 3: print('begun', flush=True)\n"
        "print('ended', n, chunk.choices[0].finish_reason, flush=True)\n"
    )
    key = own_server.new_key("drained")
    arguments = [sys.executable, "-c", script, f"{own_server.address}/v1", key.secret]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "begun\n"
        own_server.process.send_signal(signal.SIGTERM)
        assert reader.stdout.readline().endswith("length\n")
    assert own_server.process.wait(40) == 0
