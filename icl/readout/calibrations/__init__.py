"""Calibrations, one file each: `build(settings, context)` returns an object with `fit(scores[n, L]) -> state` and
`apply(state, scores[n, L]) -> log-probabilities[n, L]`. The state is plain JSON data, so that it can be frozen in a predictor.

Optional: `NEEDS_TARGETS = True` in the file (then `fit(scores, targets: int[n])`), and on the object `queries() -> [Example]`, what is
scored to fit on instead of rows of the pool."""
