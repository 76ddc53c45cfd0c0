"""The drafts of JSON Schema, as the package `jsonschema` knows them; loaded with the first schema that is sent."""

from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from galerne.kernel import BadRequest

__all__ = ["check_schema"]


def check_schema(path: str, schema: dict[str, Any]) -> None:
    """Raise `BadRequest` (400) naming the place in `path` when `schema` is none of draft 2020-12."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        where = "".join(f".{step}" if isinstance(step, str) else f"[{step}]" for step in error.absolute_path)
        problem = BadRequest(
            f"{path}: this is no JSON Schema; see {where or 'its top'}.", param=path, code="invalid_schema"
        )
        raise problem from None
    except RecursionError:
        raise BadRequest(f"{path}: this JSON Schema is nested too deeply.", param=path, code="invalid_schema") from None
