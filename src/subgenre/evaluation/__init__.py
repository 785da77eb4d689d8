"""Can the figures be trusted? Baselines, cross-validation, and the audits."""
