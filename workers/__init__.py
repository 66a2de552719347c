"""The decode path: from stream entries to stored, judged explanations."""
