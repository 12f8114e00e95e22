"""The command line: parse and call, one file a command."""
