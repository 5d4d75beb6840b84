"""Real processes to break, and the checker of the promises; for chaos tests, acceptance tests, benchmarks."""
