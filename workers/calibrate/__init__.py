"""`subtext calibrate`: measures a decoder on benign traffic and sets its thresholds."""
