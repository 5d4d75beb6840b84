"""What every PRISM process shares; the layers are in docs/architecture.md."""
