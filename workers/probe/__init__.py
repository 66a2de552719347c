"""`subtext concept fit`: from two files of prompts to a probe, with its recall on prompts held out."""
