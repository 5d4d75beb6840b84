"""The model worker: batches in from `prism.batches`, results out to `prism.results`, nothing kept."""
