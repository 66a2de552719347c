"""What an incident may go through and what labels are worth. Pure, without I/O."""
