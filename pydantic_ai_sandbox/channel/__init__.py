"""How a backend talks to the runner inside a container: one byte stream, many operations at once."""
