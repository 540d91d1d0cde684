"""mcpipe: several given people in one generated image, from raw clips to a benchmark table.

Importing it stops the usage reports of the libraries that it loads (`mcpipe.core.offline`), in every process.
"""

from mcpipe.core.offline import send_no_reports

send_no_reports()
