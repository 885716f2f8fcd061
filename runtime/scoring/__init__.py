"""Many files to rows: decoding in processes, batches, shards that are kept."""
