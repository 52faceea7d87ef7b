"""Models on disk, looked at without torch: found, checked part by part, and told apart."""
