"""HTTP for usage: Mistral's admin path, and OpenAI's organisation usage over the same events."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from galerne.governance import Actor, Permission
from galerne.governance.access import requires
from galerne.kernel import BadRequest, Forbidden
from galerne.kernel.web import Reading, RequestClock, Text, UtcMoment
from galerne.metering.buckets import DEFAULT_BUCKETS, MOST_BUCKETS, BucketQuery, Group, Kind, Width
from galerne.metering.events import UsageFilter
from galerne.metering.schemas import BucketPage, UsageOut, bucket_out, page_out
from galerne.metering.service import usage, usage_by_bucket

router = APIRouter(tags=["Usage"])

UsageReader = Annotated[Actor, requires(Permission.USAGE_READ)]


class UsageQuery(BaseModel):
    """What to count. Times are ISO 8601 or Unix seconds, UTC unless they say otherwise; `end` is exclusive."""

    model_config = ConfigDict(extra="forbid")

    workspace_id: Text | None = None
    api_key_id: Text | None = None
    model: Text | None = None
    start: UtcMoment | None = None
    end: UtcMoment | None = None
    month: int | None = Field(None, ge=1, le=12, description="With `year`, instead of `start` and `end`.")
    year: int | None = Field(None, ge=2000, le=9998)
    limit: int = Field(100, ge=1, le=1000)
    after: Text | None = Field(None, description="`last_id` of the page before.")

    def bounds(self, now: datetime) -> tuple[datetime | None, datetime | None]:
        """From when to when; a month without a year is one of this year, a year without a month a whole year."""
        if self.month is None and self.year is None:
            return self.start, self.end
        if self.start is not None or self.end is not None:
            raise BadRequest("Give either month and year, or start and end.", param="month")
        year = self.year or now.year
        since = datetime(year, self.month or 1, 1, tzinfo=UTC)
        next_month = 1 if self.month is None else self.month % 12 + 1
        return since, datetime(year + (next_month == 1), next_month, 1, tzinfo=UTC)


class OpenAIUsageQuery(BaseModel):
    """OpenAI's query: Unix seconds, `end_time` exclusive; lists are repeated, with or without `[]` after the name."""

    model_config = ConfigDict(extra="forbid")

    start_time: int = Field(ge=0, le=253_402_300_799)
    end_time: int | None = Field(None, ge=0, le=253_402_300_799, description="Default: now.")
    bucket_width: Width = "1d"
    group_by: list[Group] = Field([], validation_alias=AliasChoices("group_by", "group_by[]"))
    project_ids: list[Text] = Field([], validation_alias=AliasChoices("project_ids", "project_ids[]"))
    api_key_ids: list[Text] = Field([], validation_alias=AliasChoices("api_key_ids", "api_key_ids[]"))
    models: list[Text] = Field([], validation_alias=AliasChoices("models", "models[]"))
    limit: int | None = Field(
        None, ge=1, description="Buckets. Days: 7, at most 31; hours: 24, 168; minutes: 60, 1440."
    )
    page: str | None = Field(None, pattern=r"^[0-9]{1,12}$", description="`next_page` of the page before.")


@router.get("/v1/admin/usage")
async def read_usage(
    query: Annotated[UsageQuery, Query()], actor: UsageReader, session: Reading, clock: RequestClock
) -> UsageOut:
    """What this organisation used: sums, sums by model, and the requests themselves, newest first."""
    since, until = query.bounds(clock.now())
    wanted = UsageFilter(
        workspace_id=next(iter(_workspaces(actor, [query.workspace_id] if query.workspace_id else [])), None),
        key_id=query.api_key_id,
        model=query.model,
        since=since,
        until=until,
    )
    return page_out(await usage(session, actor.organisation_id, wanted, query.limit, query.after))


@router.get("/v1/organization/usage/completions")
async def read_completions_usage(
    query: Annotated[OpenAIUsageQuery, Query()], actor: UsageReader, session: Reading, clock: RequestClock
) -> BucketPage:
    """Usage of text generation in buckets of time, as OpenAI's client reads it."""
    return await _page(session, _bucket_query(query, actor, "completions", clock.now()))


@router.get("/v1/organization/usage/embeddings")
async def read_embeddings_usage(
    query: Annotated[OpenAIUsageQuery, Query()], actor: UsageReader, session: Reading, clock: RequestClock
) -> BucketPage:
    """Usage of embeddings in buckets of time, as OpenAI's client reads it."""
    return await _page(session, _bucket_query(query, actor, "embeddings", clock.now()))


async def _page(session: Reading, query: BucketQuery) -> BucketPage:
    found, next_s = await usage_by_bucket(session, query)
    return BucketPage(
        object="page",
        data=[bucket_out(bucket, query.kind) for bucket in found],
        has_more=next_s is not None,
        next_page=None if next_s is None else str(next_s),
    )


def _bucket_query(query: OpenAIUsageQuery, actor: Actor, kind: Kind, now: datetime) -> BucketQuery:
    most = MOST_BUCKETS[query.bucket_width]
    limit = query.limit or DEFAULT_BUCKETS[query.bucket_width]
    if limit > most:
        raise BadRequest(f"limit is at most {most} for buckets of {query.bucket_width}.", param="limit")
    return BucketQuery(
        organisation_id=actor.organisation_id,
        kind=kind,
        start_s=query.start_time if query.page is None else max(query.start_time, int(query.page)),
        end_s=int(now.timestamp()) + 1 if query.end_time is None else query.end_time,
        width=query.bucket_width,
        limit=limit,
        group_by=list(dict.fromkeys(query.group_by)),
        workspace_ids=_workspaces(actor, query.project_ids),
        key_ids=query.api_key_ids,
        models=query.models,
    )


def _workspaces(actor: Actor, asked: list[str]) -> list[str]:
    if actor.workspace_id is None:
        return asked
    if any(workspace_id != actor.workspace_id for workspace_id in asked):
        raise Forbidden("This key belongs to one workspace and sees the usage of that workspace only.")
    return [actor.workspace_id]
