"""Files to tasks: readers and validation, a resumable stream, media, the embedded tasks."""
