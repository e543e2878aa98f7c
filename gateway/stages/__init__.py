"""The stages of the street; none imports another."""
