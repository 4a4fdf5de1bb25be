"""Steps from one schema to the next, each a file of its own."""
