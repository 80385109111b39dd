"""Parameter-efficient fine-tuning methods, one file each."""
