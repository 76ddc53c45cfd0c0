"""Money that comes in: what a bank says, and which invoices it pays. Pure."""
