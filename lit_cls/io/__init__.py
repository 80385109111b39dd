"""Files on disk and text on the terminal: each mechanism once."""
