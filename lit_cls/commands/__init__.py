"""Commands about data and trained classifiers, one file each; none trains."""
