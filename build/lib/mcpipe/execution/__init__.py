"""Where work on many records is done, and how it resumes."""
