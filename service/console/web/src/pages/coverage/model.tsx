/** The statement of one model: by step, by reason, by gap, and whether the counts agree. */
import { useId } from "react";
import type { Schemas } from "@/api/client";
import { Badge } from "@/ui/badge";
import { FlowOfRange } from "@/ui/flow-table";
import { whole } from "@/ui/numbers";
import { Scroll } from "@/ui/scroll";
import { Share } from "@/ui/share";
import { Absent, Empty } from "@/ui/states";
import { StepBars } from "@/ui/step-bars";
import { Time } from "@/ui/time";
import { Untrusted } from "@/ui/untrusted";
import { isQuiet, lossesOf } from "./losses";

type Model = Schemas["ModelStatement"];

export function ModelCoverage({ model, resolution }: { model: Model; resolution: string }) {
  const id = useId();
  return (
    <section className="panel" aria-labelledby={id}>
      <h2 id={id}>
        <Untrusted text={model.model} limit={120} />
      </h2>
      <StepBars
        label={`Minutes by ${resolution}`}
        names={["with traffic", "of which nobody reported", "without traffic"]}
        bars={model.steps.map(({ start, minutes }) => ({
          start,
          values: [minutes.with_traffic, minutes.nobody_reported, minutes.no_traffic],
        }))}
      />
      <p>
        <Share count={model.minutes.nobody_reported} of={model.minutes.total} what="minutes" /> are those of
        which nobody reported: what came by in them, if anything, was not looked at.
      </p>
      <FlowOfRange of={model} caption="Over the whole range; canaries are no traffic." />
      <Losses model={model} />
      <Steps model={model} resolution={resolution} />
      <Gaps model={model} />
      <Agreement model={model} />
    </section>
  );
}

function Losses({ model }: { model: Model }) {
  const lost = lossesOf(model.steps);
  return (
    <>
      <h3>Not looked at, by reason</h3>
      {lost.length === 0 ? (
        <Empty>Nothing that was counted was lost.</Empty>
      ) : (
        <Scroll label="Losses by reason">
          <table>
            <caption>
              Of {whole(model.totals.requests_sampled.denominator)} requests seen and{" "}
              {whole(model.totals.rows_decoded.denominator)} activations sampled. What is unobservable is
              counted in requests or positions.
            </caption>
            <thead>
              <tr>
                <th scope="col">Where</th>
                <th scope="col">Kind</th>
                <th scope="col">Reason</th>
                <th scope="col">How many</th>
              </tr>
            </thead>
            <tbody>
              {lost.map((one) => (
                <tr key={`${one.hop} ${one.kind} ${one.reason}`}>
                  <td>{one.hop}</td>
                  <td>{one.kind.replace("_", " ")}</td>
                  <td>{one.reason.replaceAll("_", " ")}</td>
                  <td className="number">{whole(one.count)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
    </>
  );
}

function Steps({ model, resolution }: { model: Model; resolution: string }) {
  const told = model.steps.filter((step) => !isQuiet(step));
  return (
    <details>
      <summary>
        By {resolution}: {whole(told.length)} of {whole(model.steps.length)}, the others had no traffic
      </summary>
      <Scroll label="Steps">
        <table>
          <thead>
            <tr>
              <th scope="col">From</th>
              <th scope="col">Nobody reported</th>
              <th scope="col">Requests sampled</th>
              <th scope="col">Activations decoded</th>
              <th scope="col">Lost</th>
            </tr>
          </thead>
          <tbody>
            {told.map((step) => (
              <tr key={step.start}>
                <th scope="row">
                  <Time at={step.start} />
                </th>
                <td className="number">
                  {whole(step.minutes.nobody_reported)} of {whole(step.minutes.total)} minutes
                </td>
                <td>
                  <Counted {...ofRatio(step.requests_sampled)} />
                </td>
                <td>
                  <Counted {...ofRatio(step.rows_decoded)} />
                </td>
                <td>
                  <Counted
                    count={step.rows_dropped + step.rows_dead_lettered}
                    of={step.rows_decoded.denominator}
                  />
                  {step.losses.length > 0 && (
                    <div className="quiet">
                      {step.losses
                        .map((one) => `${one.reason.replaceAll("_", " ")} ${whole(one.count)}`)
                        .join(", ")}
                    </div>
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </details>
  );
}

/** Most steps of a quiet day have nothing: said in two words, so that the others stand out. */
function Counted(share: { count: number; of: number }) {
  if (share.count === 0 && share.of === 0) return <span className="quiet">none counted</span>;
  return <Share {...share} />;
}

function ofRatio({ numerator, denominator }: Schemas["Ratio"]) {
  return { count: numerator, of: denominator };
}

function Gaps({ model }: { model: Model }) {
  return (
    <details>
      <summary>
        Gaps: {whole(model.gaps.length)} of {whole(model.gaps_total)} are listed, the longest
      </summary>
      <ul>
        {model.gaps.map((gap) => (
          <li key={gap.from}>
            <Time at={gap.from} /> to <Time at={gap.to} />, {whole(gap.minutes)} minutes:{" "}
            {gap.reason.replaceAll("_", " ")}
          </li>
        ))}
      </ul>
    </details>
  );
}

function Agreement({ model }: { model: Model }) {
  if (model.balanced === null || model.balanced === undefined) {
    return <Absent what="Whether the counts agree" why="Nothing was counted that could be checked." />;
  }
  return (
    <details>
      <summary>
        {model.balanced ? (
          <Badge tone="good">counts agree</Badge>
        ) : (
          <Badge tone="bad">counts do not agree</Badge>
        )}{" "}
        what came into each hop, and what came out of it
      </summary>
      <Scroll label="Counts of each hop">
        <table>
          <thead>
            <tr>
              <th scope="col">Where</th>
              <th scope="col">In</th>
              <th scope="col">Out</th>
              <th scope="col">On the way</th>
              <th scope="col">Difference</th>
            </tr>
          </thead>
          <tbody>
            {model.equations.map((one) => (
              <tr key={`${one.hop} ${one.equation}`}>
                <th scope="row" title={one.equation}>
                  {one.hop}
                </th>
                <td className="number">{whole(one.rows_in)}</td>
                <td className="number">{whole(one.rows_out)}</td>
                <td className="number">{whole(one.in_flight)}</td>
                <td className="number">
                  {whole(one.difference)} of {whole(one.rows_in)}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </details>
  );
}
