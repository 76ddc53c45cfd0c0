"""XML from outside, read without entities, document types or network. Pure."""

from xml.etree import ElementTree

from galerne.kernel import Unprocessable

LARGEST_BYTES = 64 * 1024 * 1024


class _NoDoctype(ElementTree.TreeBuilder):
    """A document type is where entities are declared, inside and outside ones: none is read."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise Unprocessable(f"The XML declares a document type ({name}), which is not read", code="invalid_xml")


def parse_xml(xml: bytes, largest_bytes: int = LARGEST_BYTES) -> ElementTree.Element:
    """The root element; raises `Unprocessable` for what is no XML, too large, or declares a document type."""
    if len(xml) > largest_bytes:
        raise Unprocessable(f"The XML has {len(xml)} bytes, more than {largest_bytes}", code="invalid_xml")
    parser = ElementTree.XMLParser(target=_NoDoctype())  # noqa: S314 - no document type, so no entity
    try:
        parser.feed(xml)
        return parser.close()
    except ElementTree.ParseError as broken:
        raise Unprocessable(f"This is no XML: {broken}", code="invalid_xml") from broken
