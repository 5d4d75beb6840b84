"""The skeleton of every service: settings, life cycle, readiness, HTTP, logs, crash points for tests."""
