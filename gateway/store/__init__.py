"""Tables, the journal, the market's state and readings."""
