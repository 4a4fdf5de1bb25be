"""The published systems as presets that anyone can run again: runs, limits, figures, tables and plots.

A study (`fbq`, `qrfl`, `oqfl`) names its runs; `simulation` computes them; `results` keeps what came out, small enough
to lie in the repository; `figures` holds it against the limits. Everything that is printed or drawn comes from what
was kept, so that it can be made again without a single run.
"""
