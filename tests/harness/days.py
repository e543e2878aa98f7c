"""The shipped data, read once for all tests that plan or play a day."""

from __future__ import annotations

from firmware_sim.dataset import DataSet, shipped

DATA = DataSet(shipped())
