import { Badge, type Tone } from "@/ui/badge";
import { type Incident, words } from "./queue";

const SEVERITIES: Readonly<Record<string, Tone>> = { critical: "bad", warning: "warning" };
const STATES: Readonly<Record<Incident["state"], Tone>> = {
  open: "warning",
  acknowledged: "plain",
  confirmed: "bad",
  dismissed: "plain",
};

export function SeverityBadge({ severity }: { severity: string }) {
  return <Badge tone={SEVERITIES[severity] ?? "plain"}>{words(severity)}</Badge>;
}

export function StateBadge({ state }: { state: Incident["state"] }) {
  return (
    <Badge tone={STATES[state]} title="What people decided, not what was measured.">
      {state}
    </Badge>
  );
}

/** Whether anybody knows how often such an incident is opened on benign requests. */
export function StatusBadge({ status }: { status: Incident["status"] }) {
  return status === "calibrated" ? (
    <Badge tone="good" title="At least one of its flags has a measured false-positive rate.">
      calibrated
    </Badge>
  ) : (
    <Badge tone="warning" title="How often such an incident is opened on benign requests is not known.">
      lead, not calibrated
    </Badge>
  );
}
