"""The command line, a file for each kind of command; every command imports what it needs late."""
