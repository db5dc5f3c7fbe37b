"""Orders, one file each: in which order the demonstrations stand in the prompt."""
