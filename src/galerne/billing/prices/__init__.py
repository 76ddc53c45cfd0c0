"""The price book: what rates there are, which one counts for a use, and what that comes to."""
