/** Whether the audit tells of the operator's own control prompts. */
import type { Schemas } from "@/api/client";
import { whole } from "@/ui/numbers";
import { Estimate } from "@/ui/share";
import { Absent } from "@/ui/states";
import { Untrusted } from "@/ui/untrusted";

type Model = Schemas["ModelStatement"];

export function CanaryRecall({ models, isKnown }: { models: Model[]; isKnown: boolean }) {
  return (
    <section className="panel" aria-labelledby="canaries">
      <h2 id="canaries">Canary recall, last 24 hours</h2>
      {isKnown && models.length === 0 && <Absent what="Recall" why="No canary has run: it is not known." />}
      {models.map((model) => (
        <div key={model.model}>
          <h3>
            <Untrusted text={model.model} limit={120} />
          </h3>
          <OfModel canaries={model.canaries} />
        </div>
      ))}
    </section>
  );
}

function OfModel({ canaries }: { canaries: Schemas["Canaries"] }) {
  if (canaries.status === "none_ran") {
    return (
      <Absent
        what="Recall"
        why={
          <>
            No canary has run: whether the audit would tell is not known. <code>subtext canary</code> sends
            them.
          </>
        }
      />
    );
  }
  if (canaries.status === "results_not_kept") {
    return (
      <Absent
        what="Recall"
        why={`Plugins saw ${whole(canaries.requests_seen)} canaries, and their runner kept no result.`}
      />
    );
  }
  return (
    <ul>
      {canaries.concepts.map((one) => (
        <li key={one.concept}>
          <strong>
            <Untrusted text={one.concept} limit={80} />
          </strong>
          :{" "}
          {one.recall ? (
            <Estimate {...one.recall} />
          ) : (
            `not known: none of ${whole(one.read + one.lost)} canaries was read`
          )}
          {one.lost > 0 && `, ${whole(one.lost)} of ${whole(one.read + one.lost)} lost`}
          {one.false_alarms && (
            <>
              ; false alarms <Estimate {...one.false_alarms} />
            </>
          )}
        </li>
      ))}
    </ul>
  );
}
