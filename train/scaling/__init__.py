"""``python -m train scaling RUNS…``: how loss and score depend on the number of training samples.

TextSquare (arXiv 2404.12803) reports in figures that both are affine in log10 of it, without coefficients, intervals or
another law. Here both are fitted with their intervals, beside a power law with an offset.
"""
