"""Measurements that take longer than a chapter, or data that doesn't come with a package."""
