/** What the page asks the service for. */
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { useEffect, useMemo } from "react";
import { api, type Schemas, take } from "@/api/client";
import { CAPTURES, pagesOf, reportOf } from "./ahead";
import { type Row, rowsOfReport } from "./rows";

export function useReport(id: string, capture: string | null) {
  return useQuery(reportOf(id, capture));
}

/** What the readings of a capture say together, which takes the service longer than all its figures. */
export function useSummary(id: string, capture: Schemas["Capture"], isAllowed: boolean) {
  const { capture_id, first_captured_at, model } = capture;
  return useQuery({
    queryKey: ["request", id, "summary", capture_id, first_captured_at, model],
    enabled: isAllowed,
    staleTime: 60_000,
    queryFn: ({ signal }) =>
      take(
        api.GET("/v1/requests/{request_id}", {
          params: {
            path: { request_id: id },
            query: { rows: false, ...(capture_id === null ? { limit: CAPTURES } : { capture_id }) },
          },
          signal,
        }),
      ),
    select: (found) =>
      found.captures.find(
        (one) =>
          one.capture_id === capture_id &&
          one.model === model &&
          one.first_captured_at === first_captured_at,
      )?.summary ?? null,
  });
}

export function useIncidents(id: string) {
  return useQuery({
    queryKey: ["request", id, "incidents"],
    queryFn: ({ signal }) => take(api.GET("/v1/incidents", { params: { query: { request: id } }, signal })),
  });
}

export type Positions = {
  rows: readonly Row[];
  layer: number | null;
  layers: readonly Schemas["LayerPositions"][];
  total: number;
  isComplete: boolean;
  error: Error | null;
  retry: () => void;
};

const NONE: Positions = {
  rows: [],
  layer: null,
  layers: [],
  total: 0,
  isComplete: false,
  error: null,
  retry: () => {},
};

/** Return the sampled positions at a layer, page by page until all are there. */
export function usePositions(
  id: string,
  capture: Schemas["Capture"] | undefined,
  layer: number | null,
): Positions {
  const paged = usePages(capture, layer);
  const listed = useListed(id, capture, layer);
  return capture === undefined ? NONE : capture.capture_id === null ? listed : paged;
}

/** A function of its own: what is written where it is used joins all pages again whenever the page is drawn. */
function joined({ pages }: { pages: Schemas["PositionPage"][] }) {
  const last = pages.at(-1);
  return {
    rows: pages.flatMap((page) => page.items),
    layer: last?.layer ?? null,
    layers: last?.layers ?? [],
  };
}

function usePages(capture: Schemas["Capture"] | undefined, layer: number | null): Positions {
  const pages = useInfiniteQuery({
    ...pagesOf(capture, layer),
    enabled: capture !== undefined && capture.capture_id !== null,
    select: joined,
  });
  const { hasNextPage, isFetching, isError, fetchNextPage } = pages;
  useEffect(() => {
    if (hasNextPage && !isFetching && !isError) void fetchNextPage();
  }, [hasNextPage, isFetching, isError, fetchNextPage]);
  const { data, error, refetch } = pages;
  // The same as long as nothing came: what is drawn of it is not drawn anew at each key.
  return useMemo(() => {
    if (data === undefined) return { ...NONE, error, retry: () => void refetch() };
    const total = data.layers.find((one) => one.layer === data.layer)?.positions ?? 0;
    return { ...data, total, isComplete: !hasNextPage, error, retry: () => void fetchNextPage() };
  }, [data, error, hasNextPage, refetch, fetchNextPage]);
}

/** Of before captures had an identity: the report lists the first of its samples, and says when there are more. */
function useListed(id: string, capture: Schemas["Capture"] | undefined, layer: number | null): Positions {
  const report = useQuery({
    queryKey: ["request", id, "rows"],
    enabled: capture !== undefined && capture.capture_id === null,
    queryFn: ({ signal }) =>
      take(api.GET("/v1/requests/{request_id}", { params: { path: { request_id: id } }, signal })),
    select: (found) => {
      const same = found.captures.find(
        (one) => one.capture_id === null && one.first_captured_at === capture?.first_captured_at,
      );
      const counts = new Map<number, number>();
      for (const { layer: at } of same?.samples ?? []) counts.set(at, (counts.get(at) ?? 0) + 1);
      const layers = [...counts].map(([at, positions]) => ({ layer: at, positions }));
      const chosen = layer ?? layers[0]?.layer ?? null;
      const rows = same === undefined || chosen === null ? [] : rowsOfReport(same, chosen);
      return { rows, layer: chosen, layers };
    },
  });
  const { data } = report;
  if (data === undefined) return { ...NONE, error: report.error, retry: () => void report.refetch() };
  return {
    ...data,
    total: data.rows.length,
    isComplete: !capture?.coverage.truncated,
    error: report.error,
    retry: () => void report.refetch(),
  };
}

export function useExplanation(id: string | null) {
  return useQuery({
    queryKey: ["explanation", id],
    enabled: id !== null,
    staleTime: 300_000,
    queryFn: ({ signal }) =>
      take(
        api.GET("/v1/explanations/{explanation_id}", {
          params: { path: { explanation_id: id ?? "" } },
          signal,
        }),
      ),
  });
}

export function useProof(id: string, isAllowed: boolean) {
  return useQuery({
    queryKey: ["proof", id],
    enabled: isAllowed,
    queryFn: ({ signal }) =>
      take(api.GET("/v1/log/proof", { params: { query: { explanation_id: id } }, signal })),
  });
}
