"""What every PRISM process shares. Layers, top to bottom: service | kafka | modelserver, runs, annotation, tables, messages."""
