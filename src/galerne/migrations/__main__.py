"""`python -m galerne.migrations`: brings the database whose address stands on standard input to the newest schema.

A process of its own, for Alembic and what it imports fill 11 MB that a server would hold for ever. What the database
refuses goes to standard output in one line, and the exit code is 1.
"""

import sys

from alembic import command
from alembic.config import Config
from sqlalchemy.exc import DBAPIError

from galerne.kernel.database import reason


def main() -> int:
    """Take all steps that are missing."""
    config = Config()
    config.set_main_option("script_location", "galerne:migrations")
    config.attributes["url"] = sys.stdin.read()
    try:
        command.upgrade(config, "head")
    except (OSError, DBAPIError) as error:
        sys.stdout.write(reason(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
