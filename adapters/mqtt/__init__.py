"""MQTT: our own device profile."""
