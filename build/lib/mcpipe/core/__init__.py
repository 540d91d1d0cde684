"""What every stage stands on: parameters, records, shards, reports, progress."""
