/** Nothing was found: among how many readings, and of which part of the traffic. */
import { useQuery } from "@tanstack/react-query";
import { api, type Schemas, take } from "@/api/client";
import { useScope } from "@/app/session";
import { Share } from "@/ui/share";
import { Absent, Empty, Failed, Loading } from "@/ui/states";
import { Time } from "@/ui/time";
import { Untrusted } from "@/ui/untrusted";
import type { Search } from "./query";

const HOURS_AT_MOST = 30 * 86_400_000;

export function Nothing({ search }: { search: Search }) {
  const mayCount = useScope("coverage:read");
  const hasPeriod = search.captured_after !== "";
  if (!mayCount || !hasPeriod) {
    return (
      <>
        <Empty>Nothing was found.</Empty>
        <Absent
          what="Among how many"
          why={
            hasPeriod
              ? "Counts need the scope coverage:read."
              : "Counts are of a period: give a first time."
          }
        />
      </>
    );
  }
  return <Among search={search} />;
}

function Among({ search }: { search: Search }) {
  const { captured_after: from, captured_before: before, model } = search;
  const to = before === "" ? new Date().toISOString().slice(0, 16).concat(":00Z") : before;
  const isLong = new Date(to).getTime() - new Date(from).getTime() > HOURS_AT_MOST;
  const counted = useQuery({
    queryKey: ["search-coverage", from, to, model],
    queryFn: ({ signal }) =>
      take(
        api.GET("/v1/coverage", {
          params: {
            query: { from, to, step: isLong ? "day" : "hour", ...(model === "" ? {} : { model }) },
          },
          signal,
        }),
      ),
  });
  if (counted.isPending) return <Loading what="how much there is" />;
  if (counted.error !== null) return <Failed error={counted.error} />;
  return <Counted report={counted.data} />;
}

function Counted({ report }: { report: Schemas["CoverageReport"] }) {
  return (
    <Empty>
      <p>
        Nothing was found. From <Time at={report.from} /> to <Time at={report.to} />:
      </p>
      {report.models.length === 0 && (
        <p>Nothing was counted there: no request was seen, or no count kept.</p>
      )}
      <ul>
        {report.models.map(({ model, requests_sampled: sampled, rows_decoded: decoded }) => (
          <li key={model}>
            <Untrusted text={model} limit={60} />:{" "}
            <Share count={decoded.numerator} of={decoded.denominator} /> sampled activations have an
            explanation; <Share count={sampled.numerator} of={sampled.denominator} /> requests were sampled.
            Of the others nothing is known.
          </li>
        ))}
      </ul>
    </Empty>
  );
}
