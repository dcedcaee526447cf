"""What restoring is measured by."""
