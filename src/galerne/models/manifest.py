"""A weights folder's manifest: which version it is, what it holds, and whether the files are still the same."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from galerne.kernel import BadRequest, NotFound


class FileDigest(msgspec.Struct, frozen=True):
    """What a file must be: its SHA-256 in hexadecimal, and its size in bytes."""

    sha256: str
    bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """`manifest.json` beside the weights, as `galerne train` writes it; what training adds is not read here."""

    name: str
    version: str
    licence: str
    created_at: datetime
    files: dict[str, FileDigest]


@dataclass(frozen=True, slots=True)
class FileCheck:
    """What became of one file: `problem` is None when its hash is the manifest's."""

    name: str
    problem: str | None


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a weights folder; `NotFound` without one, `BadRequest` saying what is wrong with a broken one."""
    path = folder / "manifest.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise NotFound(f"{folder} holds no manifest.json, so nobody can say what it should contain.") from None
    except msgspec.MsgspecError as error:
        raise BadRequest(f"{path} is not a manifest: {error}") from None


def context_length(folder: Path) -> int:
    """The tokens that the model in `folder` was made for, prompt and answer together, as its `config.json` says."""
    path = folder / "config.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Config).max_position_embeddings
    except (FileNotFoundError, msgspec.MsgspecError) as error:
        raise BadRequest(f"{path} does not say how long a context the model takes: {error}") from None


class _Config(msgspec.Struct):
    max_position_embeddings: int


def verify_weights(folder: Path) -> list[FileCheck]:
    """Each file of the manifest with what is wrong with it, if anything: missing, or changed since it was made."""
    return [FileCheck(name, _problem(folder / name, digest)) for name, digest in read_manifest(folder).files.items()]


def _problem(path: Path, digest: FileDigest) -> str | None:
    if not path.is_file():
        return "missing"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return None if found == digest.sha256 else f"changed: SHA-256 is {found}, the manifest says {digest.sha256}"
