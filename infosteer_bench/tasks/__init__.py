"""The evaluation tasks: strict reading of the YAMLs, the filters, and the hooks that lm-eval calls."""
