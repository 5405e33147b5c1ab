"""MkDocs hooks that generate parts of the pages from the code."""
