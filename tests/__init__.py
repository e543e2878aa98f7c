"""Tests; a package so that `python -m tests.bench` finds ours."""
