"""Starting workers. A launcher only starts them: the run directory tells each what to do."""
