"""The schema's history, shipped in the wheel; `Database.migrate` has it run by a process of its own."""
