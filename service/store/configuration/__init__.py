"""What was in force when: versions of each kind of configuration, and who ran which of them."""
