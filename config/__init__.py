"""Settings: typed models, loading, device profiles."""
