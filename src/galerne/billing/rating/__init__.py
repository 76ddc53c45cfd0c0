"""Rating: what was used, at the price book's prices, by revisions that are only ever added to."""
