from pathlib import Path

import asyncpg

from tests.serving import serving
from tests.system.traffic import at_once, session, whole
from tests.upstreams import says, upstream


async def test_an_installation_on_postgresql_answers_and_meters(postgresql_server: str, tmp_path: Path) -> None:
    await create(postgresql_server, "system")
    environment = {"GALERNE_DATABASE_URL": postgresql_server.format(name="system")}
    with (
        upstream(says("Good ", "morning")) as other,
        serving(tmp_path / "data", "--no-engines", environment=environment) as server,
    ):
        server.add_upstream("remote", other.url)
        key = server.new_key("on postgresql")
        async with session(server, key.secret) as http:
            received = await at_once(*(whole(http, model="remote") for _ in range(20)))
        assert {one.status for one in received} == {200}
        rows = {row["id"]: row for row in server.usage(key)}
        assert set(rows) == {one.request_id for one in received}
        assert {row["output_tokens"] for row in rows.values()} == {2}
        verified = server.cli("journal", "verify")
        assert verified.returncode == 0, verified.stderr
        assert not (server.data / "galerne.db").exists()


async def create(address: str, name: str) -> None:
    connection = await asyncpg.connect(address.format(name="postgres").replace("+asyncpg", ""))
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
