"""Output of instances: files on disk, read in big blocks, shipped in numbered batches."""
