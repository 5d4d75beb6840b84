"""Speed, memory and recovery, measured on this machine: `make bench`, or `python -m benchmarks NAME …`."""
