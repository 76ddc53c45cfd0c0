"""Invoice documents: from what was decided to EN 16931 XML and a PDF/A-3 that carries it. Knows no database."""
