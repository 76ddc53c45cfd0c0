"""Cards through Stripe, an adapter: it says what happened to a card, our ledger says what was paid.

It speaks Stripe's HTTP itself, a handful of calls; nothing of Stripe's is a dependency.
"""
