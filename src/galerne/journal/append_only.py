"""How the database itself keeps a table append-only, against our own defects and stray statements."""


def refuse_changes(table: str, dialect_name: str) -> list[str]:
    """The statements that make `table` refuse UPDATE and DELETE (and TRUNCATE, where there is such a thing).

    For a migration to run one by one after it made the table. They stop mistakes; whoever owns the database can drop a
    trigger, which is why the journal is also chained.
    """
    if dialect_name == "sqlite":
        return [_sqlite_trigger(table, change) for change in ("UPDATE", "DELETE")]
    return [
        _POSTGRESQL_FUNCTION,
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} {_FOR_EACH_ROW}",
        f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} {_FOR_EACH_STATEMENT}",
    ]


_FOR_EACH_ROW = "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
_FOR_EACH_STATEMENT = "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
_POSTGRESQL_FUNCTION = """
CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING MESSAGE = TG_TABLE_NAME || ' is append-only', ERRCODE = 'integrity_constraint_violation';
END
$$"""


def _sqlite_trigger(table: str, change: str) -> str:
    return (
        f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
    )
