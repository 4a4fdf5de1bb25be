"""Where energy figures come from: one board per file behind `base.Meter`."""
