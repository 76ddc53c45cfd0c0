"""Metering: what each request consumed, counted once. What it costs is billing's business."""

from galerne.metering.buckets import Bucket, BucketQuery
from galerne.metering.events import Outcome, Totals, UsageEvent, UsageFilter, UsagePage
from galerne.metering.routes import router
from galerne.metering.schemas import event_fields, totals_fields
from galerne.metering.service import record, record_script, usage, usage_by_bucket

__all__ = [
    "Bucket",
    "BucketQuery",
    "Outcome",
    "Totals",
    "UsageEvent",
    "UsageFilter",
    "UsagePage",
    "event_fields",
    "record",
    "record_script",
    "router",
    "totals_fields",
    "usage",
    "usage_by_bucket",
]
