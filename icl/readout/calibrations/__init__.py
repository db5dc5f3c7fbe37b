"""Calibrations, one file each: `build(settings, context)` returns an object with `fit(scores[n, L]) -> state` and
`apply(state, scores[n, L]) -> log-probabilities[n, L]`. The state is plain JSON data, so that it can be frozen in a predictor."""
