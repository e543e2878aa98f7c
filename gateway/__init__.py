"""The running service: the street's stages, its store, its API and its commands."""
