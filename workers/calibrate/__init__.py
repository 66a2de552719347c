"""`subtext calibrate`: what is normal for a decoder on benign traffic."""
