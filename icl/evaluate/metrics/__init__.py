"""One file per metric; the file name is the metric's name.

A metric offers `KINDS` (the task kinds it judges) and `build(settings, context)`, which returns a callable

    (predictions, examples) -> float[n]     the value of each item; nan = could not be scored, never counted as wrong

with, all optional,

    aggregate(predictions, examples, samples: int[r, m]) -> float[r]
                        the metric over each of r resamples of m positions; left out, it is the mean of the items' values.
                        Positions are always those of items that were scored.
    bounds: tuple[float, float]     the range of the metric (then shown in per cent if it is (0, 1))
    higher_is_better: bool          left out: True
"""
