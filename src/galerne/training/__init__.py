"""Training: recipes, the runs that follow them, their evaluation, and the weights that come out.

Everything here needs the `train` extra (torch, transformers, tokenizers); nothing that serves imports it.
"""

from galerne.training.dialogue import chat_template, render
from galerne.training.evaluation import HeldOut, evaluate, held_out_loss, last_word_accuracy, minimal_pair_accuracy
from galerne.training.export import export_run
from galerne.training.recipe import Recipe, load_recipe, parse_recipe
from galerne.training.record import Record, read_record
from galerne.training.run import Places, run_recipe
from galerne.training.tokens import SPECIAL_TOKENS

__all__ = [
    "SPECIAL_TOKENS",
    "HeldOut",
    "Places",
    "Recipe",
    "Record",
    "chat_template",
    "evaluate",
    "export_run",
    "held_out_loss",
    "last_word_accuracy",
    "load_recipe",
    "minimal_pair_accuracy",
    "parse_recipe",
    "read_record",
    "render",
    "run_recipe",
]
