"""One run, from checked input to its report; its folder; resuming."""
