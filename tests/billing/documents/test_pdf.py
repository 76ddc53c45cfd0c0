import importlib
import io
from dataclasses import replace
from typing import Any

import pytest
from pypdf import PdfReader

from galerne.billing.documents.cii import to_cii
from galerne.billing.documents.cii_reader import from_cii
from galerne.billing.documents.document import compute
from galerne.billing.documents.page import page_of
from galerne.billing.documents.pdf import extract_xml, to_pdf
from galerne.billing.documents.vat import Language
from galerne.billing.documents.wording import LANGUAGES, WORDS, written_number
from galerne.kernel import Unavailable, Unprocessable
from tests.billing.documents.samples import CASES, GERMAN, draft

LANGUAGE_OF: dict[str, Language] = {"reverse-charge": "de", "credit-note-reverse-charge": "de", "domestic": "fr"}
SHORT = [case for case in CASES if case != "three-hundred-lines"]


def reader(pdf: bytes) -> Any:
    return PdfReader(io.BytesIO(pdf), strict=True)


def text_of(pdf: bytes) -> str:
    return "\n".join(page.extract_text() for page in reader(pdf).pages)


def fonts_of(read: Any) -> list[Any]:
    found = {
        id(font.get_object()): font.get_object()
        for page in read.pages
        for font in page["/Resources"].get("/Font", {}).values()
    }
    return list(found.values())


@pytest.mark.parametrize("case", SHORT)
def test_a_printed_invoice_carries_exactly_its_xml(case: str) -> None:
    document = compute(CASES[case])
    pdf = to_pdf(document, LANGUAGE_OF.get(case, "en"))
    assert extract_xml(pdf) == to_cii(document)
    assert from_cii(extract_xml(pdf)).totals == document.totals


def test_it_has_what_pdf_a_3_asks_for() -> None:
    pdf = to_pdf(compute(CASES["domestic"]), "fr")
    read = reader(pdf)
    root = read.root_object
    assert pdf.startswith(b"%PDF-1.7\n%")
    assert min(pdf.split(b"\n")[1][1:5]) > 127
    assert len(read.trailer["/ID"]) == 2
    assert "/Encrypt" not in read.trailer
    intent = root["/OutputIntents"][0]
    assert intent["/S"] == "/GTS_PDFA1"
    assert intent["/DestOutputProfile"]["/N"] == 3
    assert root["/MarkInfo"]["/Marked"]
    assert root["/Lang"] == "fr"
    assert "/StructTreeRoot" in root
    assert "/AA" not in root
    assert "/OpenAction" not in root
    attached = root["/AF"][0].get_object()
    assert attached["/AFRelationship"] == "/Alternative"
    assert attached["/F"] == attached["/UF"] == "factur-x.xml"
    assert attached["/EF"]["/F"]["/Subtype"] in ("/text/xml", "/text#2Fxml")
    assert "/ModDate" in attached["/EF"]["/F"]["/Params"]


def test_every_font_is_embedded_and_says_which_characters_it_shows() -> None:
    fonts = fonts_of(reader(to_pdf(compute(CASES["domestic"]), "fr")))
    assert len(fonts) >= 2
    for font in fonts:
        descriptor = font["/DescendantFonts"][0]["/FontDescriptor"]
        assert {"/FontFile3", "/FontFile2"} & set(descriptor)
        assert "/ToUnicode" in font


def test_the_metadata_says_pdf_a_3_and_factur_x_and_describes_its_own_schema() -> None:
    xmp = reader(to_pdf(compute(CASES["domestic"]), "fr")).root_object["/Metadata"].get_data().decode()
    etree: Any = importlib.import_module("lxml.etree")
    tree = etree.fromstring(xmp.encode())
    fx = "{urn:factur-x:pdfa:CrossIndustryDocument:invoice:1p0#}"
    told = {each.tag.removeprefix(fx): each.text for each in tree.iter() if str(each.tag).startswith(fx)}
    assert told == {
        "DocumentType": "INVOICE",
        "DocumentFileName": "factur-x.xml",
        "Version": "1.0",
        "ConformanceLevel": "EN 16931",
    }
    prefix = "{http://www.aiim.org/pdfa/ns/"
    assert tree.findtext(f".//{prefix}id/}}part") == "3"
    assert tree.findtext(f".//{prefix}id/}}conformance") == "A"
    described = [each.text for each in tree.iter(f"{prefix}property#}}name")]
    assert set(told) <= set(described)


def test_factur_x_itself_finds_the_xml_in_it() -> None:
    library: Any = importlib.import_module("facturx")
    document = compute(CASES["reverse-charge"])
    name, xml = library.get_facturx_xml_from_pdf(to_pdf(document, "de"), check_xsd=True)
    assert (name, xml) == ("factur-x.xml", to_cii(document))


@pytest.mark.parametrize("language", LANGUAGES)
def test_people_read_what_machines_read_in_their_language(language: Language) -> None:
    document = compute(CASES["allowances-and-charges"])
    text = text_of(to_pdf(document, language)).replace("\u202f", " ")
    amounts = {"en": ("489.52 EUR", "123,456,789"), "fr": ("489,52 EUR", "123 456 789")}
    amounts["de"] = ("489,52 EUR", "123.456.789")
    for told in (*amounts[language], WORDS[language]["invoice"], WORDS[language]["due_total"], "FR-2026-000123"):
        assert told in text


def test_a_long_invoice_goes_over_pages_that_each_repeat_the_header_and_say_where_they_are() -> None:
    lines = CASES["three-hundred-lines"].lines[:50]
    pages = [page.extract_text() for page in reader(to_pdf(compute(draft(lines=lines)), "en")).pages]
    assert len(pages) == 3
    for number, text in enumerate(pages, 1):
        assert f"{number} / {len(pages)}" in text
        assert number == 1 or "Invoice FR-2026-000123" in text
        assert "Unit price" in text or number == len(pages)


def test_the_same_document_is_the_same_pdf() -> None:
    document = compute(CASES["domestic"])
    assert to_pdf(document, "fr") == to_pdf(document, "fr")


def test_why_no_vat_is_charged_stands_on_the_page() -> None:
    assert "Autoliquidation : directive 2006/112/CE" in text_of(to_pdf(compute(CASES["reverse-charge"]), "de"))


def test_text_is_text_and_never_the_typesetter_s_language() -> None:
    name = '#panic("no") $x$ *bold* <b> & "quoted" \\ // [x]'
    pdf = to_pdf(compute(draft(buyer=replace(GERMAN, name=name))), "en")
    assert '#panic("no") $x$ *bold*' in text_of(pdf)
    assert from_cii(extract_xml(pdf)).draft.buyer.name == name


def test_a_character_that_no_font_shows_is_refused_with_what_helps() -> None:
    with pytest.raises(Unprocessable, match="font"):
        to_pdf(compute(draft(buyer=replace(GERMAN, name="\U0001347f"))), "en")


@pytest.mark.parametrize("pdf", [b"", b"no", b"%PDF-1.7\nnothing"])
def test_what_carries_no_invoice_is_refused(pdf: bytes) -> None:
    with pytest.raises(Unprocessable) as refused:
        extract_xml(pdf)
    assert refused.value.code == "invalid_pdf"


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(importlib.import_module("sys").modules, "pypdf", None)
    with pytest.raises(Unavailable, match=r"galerne\[billing\]"):
        extract_xml(b"")


def test_every_word_exists_in_every_language() -> None:
    assert all(all(words.values()) for words in WORDS.values())
    assert len({frozenset(words) for words in WORDS.values()}) == 1


@pytest.mark.parametrize(
    ("value", "language", "written"),
    [
        ("1234567.5", "en", "1,234,567.5"),
        ("1234567.50", "fr", "1\u202f234\u202f567,50"),
        ("-1234.5", "de", "\u22121.234,5"),
        ("0", "de", "0"),
    ],
)
def test_a_number_is_written_as_its_language_writes_it(value: str, language: Language, written: str) -> None:
    assert written_number(importlib.import_module("decimal").Decimal(value), language) == written


def test_the_page_has_no_rate_where_the_law_knows_none() -> None:
    assert {line["vat"] for line in page_of(compute(CASES["outside-the-eu"]), "en")["lines"]} == {"\u2013"}
