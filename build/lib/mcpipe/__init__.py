"""mcpipe: several given people in one generated picture, from raw clips to a benchmark table."""
