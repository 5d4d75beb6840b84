"""The ingestor: CSVs in from `prism.intake`; runs to `prism.runs`, batches to `prism.batches` out."""
