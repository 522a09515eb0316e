"""A local web page over run folders, and an agent to ask: reads records, trains nothing."""
