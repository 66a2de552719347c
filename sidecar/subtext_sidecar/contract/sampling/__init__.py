"""What is looked at, as far as others work it out too: policies, and the windows of an answer."""
