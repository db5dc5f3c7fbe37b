"""One file per metric; the file name is the metric's name.

A metric offers `KINDS` (the task kinds it judges) and `build(settings, context)`, which returns a callable

    (predictions, examples) -> float[n]     the value of each item; nan = could not be scored, never counted as wrong

with, all optional,

    aggregate(predictions, examples, samples: int[r, m]) -> float[r]
                        the metric over each of r resamples of m positions; left out, it is the mean of the items' values.
                        Positions are always those of items that were scored.
    bounds: tuple[float, float]     the range of the metric (then shown in per cent if it is (0, 1))
    higher_is_better: bool          left out: True
    ranked: bool                    left out: True; False: the figure only describes, and no method leads by it
    signature(examples) -> str      what others need to compute the same figure; it stands in the results

A metric that needs a package which icl does not install by itself says `PACKAGE` (the module's name) and `EXTRA` (which extra brings it):
a suite that asks for it is refused before any work where the package is missing.
"""
