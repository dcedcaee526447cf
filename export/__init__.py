"""Turn a model and its weights into files that other runtimes load, and prove each one."""
