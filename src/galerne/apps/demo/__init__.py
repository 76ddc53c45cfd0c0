"""A year of three customers, for those who want to look at an installation that has been used."""
