"""Selectors, one file each: which rows of the pool, or of the candidates of the stage before, become demonstrations."""
