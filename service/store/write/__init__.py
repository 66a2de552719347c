"""The workers' writes: idempotent, and without a commit, which is the caller's."""
