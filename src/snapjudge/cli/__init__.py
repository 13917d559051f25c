"""The command line: parse, call a flow, print. Holds no logic of its own."""
