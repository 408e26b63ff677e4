"""The proof: real clusters in network namespaces, faults, a workload, and a checker of what the clients were told."""
