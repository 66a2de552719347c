/** Erasures that wait. What they are about is shown to nobody: who asked, for what scope, and until when. */
import { useInfiniteQuery, useQueryClient } from "@tanstack/react-query";
import { api, take } from "@/api/client";
import { Badge } from "@/ui/badge";
import { Empty, Failed, Loading } from "@/ui/states";
import { Time } from "@/ui/time";
import { By, More } from "./parts";
import { isWaiting, type Kind, Waits } from "./waiting";

const ERASURE: Kind = {
  name: "erasure",
  scope: "erasures:write",
  leads: {
    confirmed:
      "With this it is carried out at the next sweep, and nothing brings back what it removes. Whoever asked cannot confirm.",
    objected:
      "With this it is never carried out, and what it was about is forgotten. It cannot be taken back.",
  },
};

export function Erasures() {
  const queries = useQueryClient();
  const found = useInfiniteQuery({
    queryKey: ["erasures"],
    initialPageParam: null as string | null,
    queryFn: ({ pageParam, signal }) =>
      take(
        api.GET("/v1/erasures", {
          params: { query: { limit: 50, ...(pageParam === null ? {} : { cursor: pageParam }) } },
          signal,
        }),
      ),
    getNextPageParam: (last) => last.next_cursor,
  });
  const items = found.data?.pages.flatMap((page) => page.items) ?? [];
  const waiting = items.filter((one) => one.state === "open" && isWaiting(one));
  return (
    <section className="panel" aria-labelledby="erasures">
      <h2 id="erasures">Erasures that wait</h2>
      <p className="quiet">
        Asked for by <code>POST /v1/erasures</code>. None removes anything before its time to object is
        over, unless somebody else confirms it.
      </p>
      {found.isPending && <Loading what="erasures" />}
      {found.error !== null && <Failed error={found.error} retry={() => void found.refetch()} />}
      {found.isSuccess && waiting.length === 0 && !found.hasNextPage && <Empty>None waits.</Empty>}
      {waiting.map((one) => (
        <Waits
          key={one.id}
          kind={ERASURE}
          decide={(decision) => async (reason, headers) => {
            const params = { path: { erasure_id: one.id } };
            const body = { decision, reason };
            await take(api.POST("/v1/erasures/{erasure_id}/decision", { params, headers, body }));
            await queries.invalidateQueries({ queryKey: ["erasures"] });
          }}
        >
          <p>
            <Badge tone="warning">waits</Badge>{" "}
            {one.scope === "tenant" ? "Of the whole tenant" : `Of one ${one.scope}`}, asked for{" "}
            <Time at={one.asked_at} /> by <By of={one} />.
          </p>
          {one.objectable_until !== null && (
            <p className="quiet">
              It is carried out after <Time at={one.objectable_until} /> unless somebody objects until then,
              and at once when somebody else confirms it.
            </p>
          )}
          <p className="quiet">
            What it is about is not shown. Its id: <code>{one.id}</code>
          </p>
        </Waits>
      ))}
      {found.hasNextPage && <More of={found} what="erasures" />}
    </section>
  );
}
