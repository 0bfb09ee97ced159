"""torch modules, by torch's default exporter or, where that fails, by its tracing one."""
