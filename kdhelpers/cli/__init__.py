"""The command line: one module a command. Only here is argv read."""
