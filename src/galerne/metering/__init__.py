"""Metering: what each request consumed, counted once. What it costs is billing's business."""

from galerne.metering.buckets import Bucket, BucketQuery
from galerne.metering.events import Outcome, Totals, UsageEvent, UsageFilter, UsagePage
from galerne.metering.lease_book import LeaseBook, Standing
from galerne.metering.limit_refusals import limit_reached
from galerne.metering.limit_rules import (
    LimitUse,
    limit_ids,
    list_every_limit,
    list_limits,
    remove_limit,
    remove_operator_limit,
    rules_script,
    set_limit,
    set_operator_limit,
)
from galerne.metering.limit_windows import Window
from galerne.metering.limits import (
    LimitRule,
    LimitSubject,
    NewLimit,
    PoolSpec,
    Quantity,
    Scope,
    check_rule,
    pool_specs,
    rule_id,
)
from galerne.metering.pool_laws import Short, Take, Taken
from galerne.metering.pools import (
    reclaim_script,
    renew_script,
    spend_script,
    takes_script,
)
from galerne.metering.service import record, record_script, recorded_script, usage, usage_by_bucket

__all__ = [
    "Bucket",
    "BucketQuery",
    "LeaseBook",
    "LimitRule",
    "LimitSubject",
    "LimitUse",
    "NewLimit",
    "Outcome",
    "PoolSpec",
    "Quantity",
    "Scope",
    "Short",
    "Standing",
    "Take",
    "Taken",
    "Totals",
    "UsageEvent",
    "UsageFilter",
    "UsagePage",
    "Window",
    "check_rule",
    "limit_ids",
    "limit_reached",
    "list_every_limit",
    "list_limits",
    "pool_specs",
    "reclaim_script",
    "record",
    "record_script",
    "recorded_script",
    "remove_limit",
    "remove_operator_limit",
    "renew_script",
    "rule_id",
    "rules_script",
    "set_limit",
    "set_operator_limit",
    "spend_script",
    "takes_script",
    "usage",
    "usage_by_bucket",
]
