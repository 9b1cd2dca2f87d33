"""Batches of notebooks: what an experiment says, checked, and what each stage depends on."""
