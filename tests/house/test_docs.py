import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "deploy" / "README.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "src").rglob("README.md"),
    ]
)
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))


@pytest.mark.timeout(60)  # imports the whole application in a process of its own
def test_the_reference_is_what_the_code_says_today() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_link_within_the_repository_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_readme_fits_one_screen() -> None:
    assert (ROOT / "README.md").read_text().count("\n") <= 60


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_fits_one_screen_and_says_what_enforces_it(decision: Path) -> None:
    text = decision.read_text()
    assert text.count("\n") <= 40
    assert all(f"**{part}" in text for part in ("Context", "Decision", "Consequences", "Alternatives", "Enforced by"))


def test_every_dependency_is_explained() -> None:
    explained = (ROOT / "docs" / "dependencies.md").read_text()
    declared = re.findall(r'^  "([a-z0-9-]+)[\[>=<]', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert declared
    assert [name for name in declared if name not in explained] == []


def test_nothing_names_a_folder_of_somebodys_machine() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    texts = [
        ROOT / name for name in tracked.stdout.split("\0") if name.endswith((".py", ".md", ".toml", ".yaml", ".json"))
    ]
    pattern = re.compile(r"(?<![\w.])/(work|home|Users|root)/\w|wire-apis|gateway-peers|\.\./shared")
    found = [
        str(p.relative_to(ROOT))
        for p in texts
        if p.is_file() and p.name != "test_docs.py" and pattern.search(p.read_text())
    ]
    assert found == []
