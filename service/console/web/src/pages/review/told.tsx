/** What was done last. It outlives the incident that it was done to, because the next one opens by itself. */
import { useSyncExternalStore } from "react";
import { Untrusted } from "@/ui/untrusted";

const heard = new Set<() => void>();
let newest = "";

export function tell(text: string): void {
  newest = text;
  for (const hear of heard) hear();
}

export function Told() {
  const text = useSyncExternalStore(
    (hear) => {
      heard.add(hear);
      return () => heard.delete(hear);
    },
    () => newest,
  );
  return (
    <p role="status" className="review-told">
      {text !== "" && <Untrusted text={text} limit={400} />}
    </p>
  );
}
