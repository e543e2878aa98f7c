"""How facts travel between stages after they are committed."""
