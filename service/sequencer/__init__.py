"""`subtext log`: gives entries their places and signs the tree."""
