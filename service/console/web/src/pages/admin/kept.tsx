/** What a period of retention is of: readings of a model or of all others, or records of the audit itself. */
import type { Schemas } from "@/api/client";
import { Untrusted } from "@/ui/untrusted";

type Version = Schemas["RetentionVersion"];

export const RECORDS: Record<NonNullable<Version["records"]>, string> = {
  access_log: "the access log",
  canaries: "canaries",
  webhooks: "webhook messages",
};

export function Kept({ of }: { of: Version }) {
  if (of.records !== null) {
    return RECORDS[of.records];
  }
  return of.model === null ? "all others" : <Untrusted text={of.model} limit={120} />;
}
