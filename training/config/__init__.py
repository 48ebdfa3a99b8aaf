"""A run's settings: YAML files, checked before anything is built."""
