"""Routes of domains that lie below `governance` and so cannot name the permission that their routes need."""
