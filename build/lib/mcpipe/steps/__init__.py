"""The work of every pipeline stage: builds the models, reads records, writes outputs to given paths."""
