"""`galerne train` at the command line: it trains, and what it refuses it refuses in one line."""

from pathlib import Path

from typer.testing import CliRunner

from galerne.apps.commands.train import app
from tests.training.small import small_recipe, write_corpora, write_recipe


def test_a_recipe_is_carried_out_and_its_weights_are_written(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", small_recipe(write_corpora(tmp_path / "text")))
    places = [
        "--corpora",
        str(tmp_path / "text"),
        "--out",
        str(tmp_path / "run"),
        "--export",
        str(tmp_path / "weights"),
    ]
    result = CliRunner().invoke(app, [str(recipe), *places])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "weights/manifest.json").is_file()


def test_a_recipe_that_is_not_there_is_refused_in_one_line(tmp_path: Path) -> None:
    arguments = [str(tmp_path / "none.yaml"), "--corpora", str(tmp_path), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "There is no recipe" in result.output
    assert "Traceback" not in result.output
