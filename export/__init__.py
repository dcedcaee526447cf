"""Write models as files that other runtimes load, and verify each file."""
