"""Generated and mutated frames for every codec; deterministic from a seed."""
