"""Many runs, and what they say together: the published table, and grids of options."""
