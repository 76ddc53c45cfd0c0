"""Wire types of usage: Galerne's own answer at Mistral's admin path, and OpenAI's pages of buckets."""

from dataclasses import asdict
from datetime import datetime
from typing import Literal

import msgspec
from pydantic import BaseModel, Field

from galerne.metering.buckets import Bucket, Kind
from galerne.metering.events import Outcome, Totals, UsageEvent, UsagePage


class TotalsOut(BaseModel):
    """Sums; token classes are disjoint and `total_tokens` is their sum."""

    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    total_tokens: int


class ModelTotalsOut(TotalsOut):
    """Sums of one model."""

    model: str


class UsageEventOut(BaseModel):
    """What one request consumed; times in milliseconds."""

    object: Literal["usage.event"]
    id: str
    workspace_id: str | None
    api_key_id: str
    model: str
    model_version: str
    endpoint: str
    dialect: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    total_tokens: int
    estimated: bool
    streamed: bool
    partial: bool
    outcome: Outcome
    finish_reason: str | None
    status: int
    started_at: datetime
    queue_ms: float
    ttft_ms: float | None
    total_ms: float


class UsageOut(BaseModel):
    """Sums over all that was asked for, and a page of events, newest first; the next is `after` = `last_id`."""

    object: Literal["usage"]
    totals: TotalsOut
    by_model: list[ModelTotalsOut]
    data: list[UsageEventOut]
    has_more: bool
    last_id: str | None


class BucketResultOut(BaseModel):
    """OpenAI's sums of one group in one bucket: `input_tokens` contains the cached ones there."""

    object: str
    input_tokens: int
    input_cached_tokens: int | None = Field(description="Not there for embeddings.")
    output_tokens: int | None = Field(description="Not there for embeddings.")
    num_model_requests: int
    project_id: str | None
    user_id: None
    api_key_id: str | None
    model: str | None
    batch: None
    service_tier: None


class BucketOut(BaseModel):
    """One slice of time, Unix seconds, `end_time` exclusive."""

    object: Literal["bucket"]
    start_time: int
    end_time: int
    results: list[BucketResultOut]


class BucketPage(BaseModel):
    """A page of buckets, oldest first; the next page is `page` = `next_page`."""

    object: Literal["page"]
    data: list[BucketOut]
    has_more: bool
    next_page: str | None


def totals_fields(totals: Totals) -> dict[str, int]:
    """The sums, and their sum, as JSON fields."""
    return {**asdict(totals), "total_tokens": totals.total_tokens}


def event_fields(event: UsageEvent) -> dict[str, object]:
    """The event as JSON fields, without the organisation, which the reader is."""
    fields = msgspec.structs.asdict(event)
    del fields["organisation_id"]
    total = event.input_tokens + event.cached_tokens + event.output_tokens
    return {"object": "usage.event", **fields, "api_key_id": fields.pop("key_id"), "total_tokens": total}


def page_out(page: UsagePage) -> UsageOut:
    """The answer of `GET /v1/admin/usage`."""
    return UsageOut(
        object="usage",
        totals=TotalsOut(**totals_fields(page.totals)),
        by_model=[ModelTotalsOut(model=model, **totals_fields(sums)) for model, sums in page.by_model],
        data=[UsageEventOut.model_validate(event_fields(event)) for event in page.events],
        has_more=page.next_after is not None,
        last_id=page.events[-1].id if page.events else None,
    )


def bucket_out(bucket: Bucket, kind: Kind) -> BucketOut:
    """One bucket in OpenAI's words: a project is a workspace, and cached tokens are a part of the input."""
    results = [
        BucketResultOut(
            object=f"organization.usage.{kind}.result",
            input_tokens=sums.input_tokens + sums.cached_tokens,
            input_cached_tokens=sums.cached_tokens if kind == "completions" else None,
            output_tokens=sums.output_tokens if kind == "completions" else None,
            num_model_requests=sums.requests,
            project_id=names.get("project_id"),
            user_id=None,
            api_key_id=names.get("api_key_id"),
            model=names.get("model"),
            batch=None,
            service_tier=None,
        )
        for names, sums in bucket.results
    ]
    return BucketOut(object="bucket", start_time=bucket.start_s, end_time=bucket.end_s, results=results)
