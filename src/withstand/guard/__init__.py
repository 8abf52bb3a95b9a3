"""The guard: what stands in front of a served model and looks at every request."""
