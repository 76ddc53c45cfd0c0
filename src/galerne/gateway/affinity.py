"""Which conversation a request belongs to, as far as its beginning shows: pure, and cheap for prompts of any length."""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, cast

__all__ = ["affinity_key"]

_MOST_MESSAGES = 8
_MOST_PARTS = 8
_END = 512
_PROMPT_BYTES = 256


def affinity_key(organisation_id: str, model_id: str, explicit: str | None, body: Mapping[str, Any]) -> bytes | None:
    """16 bytes that the turns of one conversation share, or None where nothing tells conversations apart (embeddings).

    `explicit` is what the caller names, as `prompt_cache_key` or in the header `x-affinity`. Without it the key is made
    of the messages of `body` up to the first of the user, which later turns repeat, or of the first 256 bytes of its
    `prompt`. Of a long text only both ends and its length count. Organisations never share a key.
    """
    hashed = blake2b(f"{organisation_id}\n{model_id}\n".encode(errors="surrogatepass"), digest_size=16)
    if explicit:
        hashed.update(b"explicit\n" + _ends(explicit))
    elif body.get("messages"):
        for text in _beginning(body["messages"]):
            hashed.update(_ends(text))
    elif body.get("prompt"):
        hashed.update(b"prompt\n" + _prompt(body["prompt"]))
    else:
        return None
    return hashed.digest()


def _beginning(messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for message in messages[:_MOST_MESSAGES]:
        role, content = message.get("role"), message.get("content")
        yield f"\n{role}"
        if isinstance(content, str):
            yield content
        elif isinstance(content, list):
            yield from map(_part, cast(list[Any], content)[:_MOST_PARTS])
        if role == "user":
            return


def _part(part: Any) -> str:
    found = part
    while isinstance(found, dict):  # {"type": "image_url", "image_url": {"url": …}}
        fields = cast(dict[str, Any], found)
        found = fields.get("text") or fields.get("url") or fields.get(str(fields.get("type")))
    return found if isinstance(found, str) else type(found).__name__


def _prompt(prompt: Any) -> bytes:
    first = prompt
    while isinstance(first, list) and first and isinstance(first[0], (str, list)):
        first = cast(list[Any], first)[0]  # of several prompts the first stands for all
    if isinstance(first, str):
        return first[:_PROMPT_BYTES].encode(errors="surrogatepass")[:_PROMPT_BYTES]
    tokens = cast(list[Any], first)[:_PROMPT_BYTES] if isinstance(first, list) else []
    return ",".join(map(str, tokens)).encode()[:_PROMPT_BYTES]


def _ends(text: str) -> bytes:
    shown = text if len(text) <= 2 * _END else f"{len(text)}\n{text[:_END]}{text[-_END:]}"
    return shown.encode(errors="surrogatepass")
