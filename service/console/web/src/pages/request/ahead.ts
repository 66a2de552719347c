/** What the page shows first. */
import { infiniteQueryOptions, queryOptions } from "@tanstack/react-query";
import { api, CONSOLE, type Schemas, take } from "@/api/client";
import { hasScope, type Rights } from "@/app/caller";
import { queries } from "@/app/queries";
import { requestInAddress, type Selection, selectionOf } from "./address";

export const CAPTURES = 3;
/** No rows and no texts: the page's first answer. */
const FIGURES = { rows: false, summary: false };
/** More than the strip shows at once; those behind them come in larger pages. */
const FIRST_POSITIONS = 400;

export const reportOf = (id: string, capture: string | null) =>
  queryOptions({
    queryKey: ["request", id, capture],
    queryFn: ({ signal }) =>
      take(
        api.GET("/v1/requests/{request_id}", {
          params: {
            path: { request_id: id },
            query: { ...FIGURES, limit: CAPTURES, ...(capture === null ? {} : { capture_id: capture }) },
          },
          signal,
        }),
      ),
  });

type Named = Pick<Schemas["Capture"], "capture_id" | "model">;

export function pagesOf(capture: Named | undefined, layer: number | null) {
  const identity = capture?.capture_id ?? null;
  return infiniteQueryOptions({
    queryKey: ["positions", identity, capture?.model, layer],
    staleTime: 60_000,
    initialPageParam: null as number | null,
    queryFn: ({ pageParam, signal }) =>
      take(
        api.GET("/v1/captures/{capture_id}/positions", {
          params: {
            path: { capture_id: identity ?? "" },
            query: {
              model: capture?.model ?? "",
              ...(layer === null ? {} : { layer }),
              ...(pageParam === null ? { limit: FIRST_POSITIONS } : { after: pageParam }),
            },
          },
          signal,
        }),
      ),
    getNextPageParam: (page) => page.next_after,
  });
}

/** Return the layer to show first: that of a verdict, or null for the lowest that was sampled. */
export function firstLayer(capture: Schemas["Capture"]): number | null {
  return capture.flags[0]?.layer ?? capture.anomaly_tests.find((test) => test.is_discovery)?.layer ?? null;
}

export function askAhead(rights: Rights): void {
  const id = requestInAddress(location.pathname, CONSOLE);
  const may = hasScope(rights, "explanations:read") && hasScope(rights, "flags:read");
  if (id !== null && id !== "" && may) void askForRequest(id, selectionOf(location.search));
}

/** Ask for the report, and for the first positions: beside it where the address names all that leads to them. */
async function askForRequest(id: string, selected: Selection): Promise<void> {
  const { capture: capture_id, model, layer } = selected;
  const report = queries.prefetchQuery(reportOf(id, capture_id));
  if (capture_id !== null && model !== null && layer !== null)
    void queries.prefetchInfiniteQuery(pagesOf({ capture_id, model }, layer));
  await report;
  const found = queries.getQueryData<Schemas["RequestReport"]>(reportOf(id, selected.capture).queryKey);
  const capture = found?.captures[0];
  if (capture === undefined || capture.capture_id === null) return;
  await queries.prefetchInfiniteQuery(pagesOf(capture, selected.layer ?? firstLayer(capture)));
}
