"""OpenADR 2.0b."""
