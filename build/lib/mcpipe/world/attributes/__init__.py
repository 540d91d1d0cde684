"""One module for each attribute of people; a new module here is a new attribute (`mcpipe.world.discovery`)."""
