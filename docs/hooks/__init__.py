"""What MkDocs calls while it builds the documentation: parts of pages that are made from the code."""
