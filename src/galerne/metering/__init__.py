"""Metering: what each request consumed, counted once. What it costs is billing's business."""

from galerne.metering.buckets import Bucket, BucketQuery
from galerne.metering.events import Outcome, Totals, UsageEvent, UsageFilter, UsagePage
from galerne.metering.lease_book import LeaseBook, Standing
from galerne.metering.limit_rules import rules_for
from galerne.metering.limits import LimitRule, LimitSubject, PoolSpec, pool_specs
from galerne.metering.pool_laws import Short, Take, Taken
from galerne.metering.pools import (
    give_back_script,
    reclaim_script,
    renew_script,
    spend_script,
    take_script,
    takes_script,
)
from galerne.metering.routes import router
from galerne.metering.schemas import event_fields, totals_fields
from galerne.metering.service import record, record_script, usage, usage_by_bucket

__all__ = [
    "Bucket",
    "BucketQuery",
    "LeaseBook",
    "LimitRule",
    "LimitSubject",
    "Outcome",
    "PoolSpec",
    "Short",
    "Standing",
    "Take",
    "Taken",
    "Totals",
    "UsageEvent",
    "UsageFilter",
    "UsagePage",
    "event_fields",
    "give_back_script",
    "pool_specs",
    "reclaim_script",
    "record",
    "record_script",
    "renew_script",
    "router",
    "rules_for",
    "spend_script",
    "take_script",
    "takes_script",
    "totals_fields",
    "usage",
    "usage_by_bucket",
]
