"""Sets a document as PDF/A-3 with its XML inside (Factur-X 1.0, profile EN 16931), and takes the XML out of one."""

import io
import json
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from galerne.billing.documents.cii import to_cii
from galerne.billing.documents.document import Document
from galerne.billing.documents.extra import load
from galerne.billing.documents.page import page_of
from galerne.billing.documents.vat import Language
from galerne.kernel import Unprocessable, invariant

XML_NAME = "factur-x.xml"
LARGEST_PDF_BYTES = 64 * 1024 * 1024

_TEMPLATE = Path(__file__).with_name("invoice.typ")
_SCHEMAS_END = "</rdf:Bag></pdfaExtension:schemas>"
_END = "</rdf:RDF>"
_NAMESPACE = "urn:factur-x:pdfa:CrossIndustryDocument:invoice:1p0#"
_PROPERTIES = {
    "DocumentType": ("INVOICE", "The type of the embedded document"),
    "DocumentFileName": (XML_NAME, "The name of the embedded document"),
    "Version": ("1.0", "The version of the standard of the embedded document"),
    "ConformanceLevel": ("EN 16931", "The conformance level of the embedded document"),
}


def to_pdf(document: Document, language: Language = "en") -> bytes:
    """The invoice for people in this language, with the invoice for machines inside: the same bytes every time.

    PDF/A-3a, tagged, fonts embedded. Raises `Unprocessable` for a character that no font here shows, `Unavailable`
    without the extra `billing`.
    """
    inputs = {"data": json.dumps(page_of(document, language)), "xml": to_cii(document).decode()}
    day = document.draft.issued_on
    made_at = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return _with_xmp(_set(inputs, made_at))


def extract_xml(pdf: bytes) -> bytes:
    """The `factur-x.xml` inside this PDF; raises `Unprocessable` when there is none, or no PDF."""
    pypdf: Any = load("pypdf")
    if len(pdf) > LARGEST_PDF_BYTES:
        raise Unprocessable(f"The PDF has {len(pdf)} bytes, more than {LARGEST_PDF_BYTES}", code="invalid_pdf")
    try:
        found = list(pypdf.PdfReader(io.BytesIO(pdf), strict=False).attachments.get(XML_NAME, []))
    except (pypdf.errors.PyPdfError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as broken:
        raise Unprocessable(f"This is no PDF that can be read: {broken}", code="invalid_pdf") from broken
    if not found:
        raise Unprocessable(f"The PDF carries no {XML_NAME}", code="invalid_pdf")
    return bytes(found[0])


def _set(inputs: dict[str, str], made_at: datetime) -> bytes:
    """With the typesetter's own fonts; a character that they lack is looked for in the system's."""
    typst: Any = load("typst")
    try:
        return _compiler(own_fonts_only=True).compile(
            sys_inputs=inputs, format="pdf", pdf_standards=["a-3a"], timestamp=made_at
        )
    except typst.TypstError:
        try:
            return _compiler(own_fonts_only=False).compile(
                sys_inputs=inputs, format="pdf", pdf_standards=["a-3a"], timestamp=made_at
            )
        except typst.TypstError as broken:
            raise Unprocessable(
                f"The invoice cannot be set: {broken.message}. A font of the system that has the character helps",
                code="invoice_not_set",
            ) from broken


@lru_cache(maxsize=2)
def _compiler(*, own_fonts_only: bool) -> Any:
    return load("typst").Compiler(_TEMPLATE, root=_TEMPLATE.parent, ignore_system_fonts=own_fonts_only)


def _with_xmp(pdf: bytes) -> bytes:
    """Adds Factur-X's properties to the metadata, described as PDF/A wants it (ISO 19005-3, 6.6.2.3)."""
    pypdf: Any = load("pypdf")
    writer: Any = pypdf.PdfWriter(clone_from=io.BytesIO(pdf))
    writer.pdf_header = "%PDF-1.7"
    metadata: Any = writer.root_object["/Metadata"]
    xmp = metadata.get_data().decode()
    invariant(all(xmp.count(end) == 1 for end in (_SCHEMAS_END, _END)), "the typesetter's XMP is not as it was")
    xmp = xmp.replace(_SCHEMAS_END, _schema() + _SCHEMAS_END).replace(_END, _values() + _END)
    metadata.set_data(xmp.encode())
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def _schema() -> str:
    described = "".join(
        "<rdf:li rdf:parseType='Resource'><pdfaProperty:category>external</pdfaProperty:category>"
        f"<pdfaProperty:description>{description}</pdfaProperty:description><pdfaProperty:name>{name}</pdfaProperty:name>"
        "<pdfaProperty:valueType>Text</pdfaProperty:valueType></rdf:li>"
        for name, (_, description) in _PROPERTIES.items()
    )
    return (
        "<rdf:li rdf:parseType='Resource'><pdfaSchema:schema>Factur-X PDFA Extension Schema</pdfaSchema:schema>"
        f"<pdfaSchema:namespaceURI>{_NAMESPACE}</pdfaSchema:namespaceURI><pdfaSchema:prefix>fx</pdfaSchema:prefix>"
        f"<pdfaSchema:property><rdf:Seq>{described}</rdf:Seq></pdfaSchema:property></rdf:li>"
    )


def _values() -> str:
    values = "".join(f"<fx:{name}>{value}</fx:{name}>" for name, (value, _) in _PROPERTIES.items())
    return f"<rdf:Description rdf:about='' xmlns:fx='{_NAMESPACE}'>{values}</rdf:Description>"
