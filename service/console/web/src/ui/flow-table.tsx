import type { Schemas } from "@/api/client";
import { flow, isUnreported } from "@/ui/flow";
import { whole } from "@/ui/numbers";
import { place } from "@/ui/scale";
import { Scroll } from "@/ui/scroll";
import { Share } from "@/ui/share";
import { Absent } from "@/ui/states";
import "@/ui/figures.css";

type Statement = Pick<Schemas["ModelStatement"], "totals" | "minutes">;

/** The same of a range with its minutes: of what nobody reported there is no flow, rather than one of zeros. */
export function FlowOfRange({ of: { totals, minutes }, caption }: { of: Statement; caption: string }) {
  if (!isUnreported(totals, minutes)) return <FlowTable sums={totals} caption={caption} />;
  return (
    <Absent
      what="The flow of traffic"
      why={
        <>
          Nobody reported of any of the {whole(minutes.total)} minutes: no server ran, or none that is
          audited, or its counts were lost. What came by, if anything, was not looked at.
        </>
      }
    />
  );
}

/** Traffic seen, sampled, decoded and lost, with bars that repeat the shares. */
export function FlowTable({ sums, caption }: { sums: Schemas["Sums"]; caption: string }) {
  return (
    <Scroll label="What became of traffic">
      <table>
        <caption>{caption}</caption>
        <thead>
          <tr>
            <th scope="col">What became of it</th>
            <th scope="col">How many</th>
            <td aria-hidden="true" />
          </tr>
        </thead>
        <tbody>
          {flow(sums).map((stage) => (
            <tr key={stage.name}>
              <th scope="row">
                {stage.name}
                {stage.note && <span className="quiet"> ({stage.note})</span>}
              </th>
              <td className="number">
                {stage.of === null || stage.count < 0 ? (
                  whole(stage.count)
                ) : (
                  <Share count={stage.count} of={stage.of} {...(stage.what ? { what: stage.what } : {})} />
                )}
              </td>
              <td aria-hidden="true">
                {stage.of !== null && stage.of > 0 && (
                  <span className={stage.isLoss ? "bar bar-lost" : "bar"}>
                    <span style={{ width: `${place(stage.count, [0, stage.of]) * 100}%` }} />
                  </span>
                )}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}
