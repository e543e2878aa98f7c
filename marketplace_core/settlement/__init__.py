"""Terms, statements and the double-entry ledger."""
