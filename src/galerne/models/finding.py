"""Which model a name means, as a script: every request asks for one."""

import json
from dataclasses import fields
from typing import Any

from galerne.kernel import NotFound, Query, Rows, Script, json_list, utc_time
from galerne.models.catalogue import Address, Model

_MODEL_FIELDS = tuple(field.name for field in fields(Model) if field.name != "addresses")
_ADDRESS_FIELDS = tuple(field.name for field in fields(Address))
_BY_ID = f"SELECT {', '.join(_MODEL_FIELDS)} FROM models WHERE id = :id"  # noqa: S608  # names of ours
# Those that have the name in quotes somewhere, said as both databases understand it: a wrong name must not cost a list.
_ALIASES = """
SELECT id, aliases FROM models
WHERE replace(CAST(aliases AS TEXT), :quoted, '') <> CAST(aliases AS TEXT) ORDER BY id"""
_ADDRESSES = f"""
SELECT {", ".join(_ADDRESS_FIELDS)} FROM model_addresses WHERE model_id = :id ORDER BY created_at, id"""  # noqa: S608  # names of ours


def find_model_script(name: str) -> Script[Model]:
    """The model with that id, or else with that alias; raises `NotFound` (`model_not_found`)."""
    # No name is other, and a database may refuse control characters with an error of its own.
    sayable = name.isprintable()
    rows = (yield Query(_BY_ID, {"id": name})) if sayable else []
    if sayable and not rows:
        aliases = yield Query(_ALIASES, {"quoted": json.dumps(name)})
        named = [model_id for model_id, listed in aliases if name in json_list(listed)]
        rows = (yield Query(_BY_ID, {"id": named[-1]})) if named else []
    if not rows:
        raise NotFound(
            f"The model '{name[:100]}' does not exist, or not for you. GET /v1/models lists what there is.",
            code="model_not_found",
            param="model",
        )
    values = _values(_MODEL_FIELDS, rows[0])
    addresses = yield Query(_ADDRESSES, {"id": values["adapter_of"] or values["id"]})
    values["aliases"] = tuple(json_list(values["aliases"]))
    values["capabilities"] = frozenset(json_list(values["capabilities"]))
    return Model(**values, addresses=_addresses(addresses))


def _addresses(rows: Rows) -> tuple[Address, ...]:
    return tuple(Address(**_values(_ADDRESS_FIELDS, row)) for row in rows)


def _values(names: tuple[str, ...], row: Any) -> dict[str, Any]:
    values: dict[str, Any] = dict(zip(names, row, strict=True))
    return {**values, "created_at": utc_time(values["created_at"])}
