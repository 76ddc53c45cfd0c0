"""One module a command; `galerne.apps.cli` imports the one that is asked for, and no other."""
