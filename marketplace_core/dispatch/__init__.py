"""Orders, merit order, planning, setpoints and what devices can do."""
