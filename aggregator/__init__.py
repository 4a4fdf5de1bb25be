"""The aggregator: merges updates, picks a precision for every device, exports models, and survives being killed."""
