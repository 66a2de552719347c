"""From readings to verdicts: concept matches, anomalies, and the policy that turns them into flags."""
