"""The house's own rules, read off the source: sizes, names, README headings, private tables, reasons."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "galerne"
FILES = sorted(path for path in SOURCE.rglob("*.py"))
DOMAINS = sorted(
    path for path in SOURCE.iterdir() if path.is_dir() and path.name not in {"apps", "migrations", "__pycache__"}
)
BANNED_MODULE_NAMES = re.compile(r"(^|_)(utils?|common|helpers?|managers?|misc|info|base)($|_)")
HEADINGS = ["Vocabulary", "Owns / does not own", "Invariants", "Times"]
SUPPRESSION = re.compile(r"#\s*(noqa|type:\s*ignore|pyright:\s*ignore)(?P<rest>.*)")


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_stays_under_500_lines_and_a_function_under_60(path: Path) -> None:
    text = path.read_text()
    long = [
        f"{node.name} at line {node.lineno}"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno + 1 > 60
    ]
    assert text.count("\n") <= 500, "split it by noun"
    assert long == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [str(path.relative_to(SOURCE)) for path in FILES if BANNED_MODULE_NAMES.search(path.stem)] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_begins_with_a_sentence_on_what_it_knows(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring is not None
    assert len(docstring) > 10


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda path: path.name)
def test_a_domain_has_its_readme_with_its_four_headings(domain: Path) -> None:
    readme = (domain / "README.md").read_text()
    assert re.findall(r"^## (.+)$", readme, re.MULTILINE) == HEADINGS


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda path: path.name)
def test_every_public_name_of_a_domain_has_a_docstring(domain: Path) -> None:
    surface = ast.parse((domain / "__init__.py").read_text())
    exported = {
        constant.value
        for node in surface.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
        for constant in ast.walk(node.value)
        if isinstance(constant, ast.Constant)
    }
    assert exported, "a domain says what it offers in __all__"
    bare = [
        f"{path.relative_to(SOURCE)}: {node.name}"
        for path in domain.rglob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and node.name in exported
        and not ast.get_docstring(node)
    ]
    assert bare == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_tables_schemas_and_services_stay_private_to_their_domain(path: Path) -> None:
    domain = path.relative_to(SOURCE).parts[0]
    if domain in {"apps", "migrations"}:
        pytest.skip("composition roots and migrations know everything")
    foreign = [
        f"line {line}: {module}"
        for line, module in imports_of(path)
        if (match := re.fullmatch(r"galerne\.(\w+)\.(tables|service|schemas|routes)", module)) and match[1] != domain
    ]
    assert foreign == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_suppression_says_why(path: Path) -> None:
    silent = [
        f"line {number}: {line.strip()}"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (match := SUPPRESSION.search(line)) and not re.search(r"(#| - |—)\s*\w+ \w+", match["rest"])
    ]
    assert silent == []
