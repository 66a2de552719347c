import type { ReactNode } from "react";

export type Tone = "plain" | "good" | "warning" | "bad";

/** A word about a thing. The tone only repeats what the word says. */
export function Badge({
  tone = "plain",
  children,
  title,
}: {
  tone?: Tone;
  children: ReactNode;
  title?: string;
}) {
  return (
    <span className={`badge badge-${tone}`} title={title}>
      {children}
    </span>
  );
}

export function VerifiedBadge({ verified }: { verified: boolean }) {
  return verified ? (
    <Badge tone="good" title="The decoder works on this activation; no claim of the text is thereby true.">
      verified
    </Badge>
  ) : (
    <Badge tone="warning" title="The text rebuilds this activation no better than other texts do.">
      unverified
    </Badge>
  );
}

export function CalibratedBadge({ calibrated }: { calibrated: boolean }) {
  return calibrated ? (
    <Badge tone="good">calibrated</Badge>
  ) : (
    <Badge tone="warning" title="No false-positive rate was measured on benign traffic.">
      not calibrated
    </Badge>
  );
}

/** The label that every reading bears. */
export function HypothesisBadge() {
  return (
    <Badge tone="warning" title="What a decoder made of an activation: a hypothesis, never a fact.">
      hypothesis
    </Badge>
  );
}
