"""The schema's history, shipped in the wheel and run by `Database.migrate`."""
