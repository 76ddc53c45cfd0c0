"""`python -m galerne.apps.demo`: fills an empty data folder with a year of three customers; `make demo` calls it."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from typing import Annotated

import typer

from galerne.apps.demo.beginning import Beginning, StoryIds, begin
from galerne.apps.demo.story import first_months
from galerne.apps.demo.year import Counts, Year, live
from galerne.billing.documents.validation import Validator
from galerne.governance import SYSTEM
from galerne.journal import Follower
from galerne.kernel import Database, ManualClock, Settings, SystemClock
from galerne.kernel.writer import open_writer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def demo(
    data: Annotated[Path, typer.Option(help="Data folder to fill; it holds no installation yet.")],
    months: Annotated[int, typer.Option(min=1, max=36, help="How many, until last month.")] = 12,
    seed: Annotated[int, typer.Option(help="The same seed tells the same story.")] = 20261123,
    scale: Annotated[float, typer.Option(min=0.001, max=20, help="How many requests, 1 for some 3,000 a month.")] = 1.0,
) -> None:
    """Fill a folder with the story, by the code that bills everybody, and say what to look at."""
    began = time.monotonic()
    begun, counts = asyncio.run(tell(data, (months, seed, scale), typer.echo))
    typer.echo(
        f"\n{counts.requests:,} requests, {counts.invoices} invoices, {counts.paid} bank bookings that paid, "
        f"{counts.waiting} that wait, in {time.monotonic() - began:.0f} s; seed {seed}.\n\n"
        f"{_look(data, begun)}"
    )


async def tell(data: Path, how: tuple[int, int, float], told: Callable[[str], None]) -> tuple[Beginning, Counts]:
    """The story of so many months, by that seed, at that scale, in that folder; refuses a folder that is in use."""
    count, seed, scale = how
    settings = Settings().with_data(data)
    months = first_months(SystemClock().now().astimezone(UTC).date(), count)
    clock = ManualClock(months[0])
    ids = StoryIds(clock, seed)
    database = Database(settings.resolved_database_url, pool_size=2)
    writer = open_writer(database.url)
    key = settings.admin_key
    try:
        await database.migrate()
        begun = await begin(database, None if key is None else key.get_secret_value(), ids, clock)
        with Validator() as validator:
            year = Year(database, writer, begun, ids, clock, validator.check, data / "bank")
            await live(year, months, seed, scale, told)
        await Follower(database, settings, clock, SYSTEM).checkpoint()
        return begun, year.counts
    finally:
        await writer.close()
        await database.close()


def _look(data: Path, begun: Beginning) -> str:
    bank = begun.parties["banque-de-l-erdre"].id
    lines = [
        f"galerne invoices list --data {data}",
        f"galerne invoices export {data}/invoices --data {data}        # PDFs, and what proves them",
        f'galerne verify invoice {data}/invoices/NUMBER.proof.json --key "$(galerne journal keys --data {data})"',
        f"galerne usage export --by day,cost_centre,model --organisation {bank} --data {data}",
        f"galerne payments waiting --data {data}",
        f"galerne journal verify --data {data}",
        f"galerne credits check --data {data}",
        f"galerne serve --data {data}        # administrator's key: {begun.admin_key}",
    ]
    return "Look at it:\n" + "\n".join(f"  {line}" for line in lines)


if __name__ == "__main__":
    app()
