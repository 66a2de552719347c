/** What the page shows first. */
import { queryOptions } from "@tanstack/react-query";
import { api, take } from "@/api/client";
import { hasScope, type Rights } from "@/app/caller";
import { queries } from "@/app/queries";

const DAY_MS = 86_400_000;
export const DAYS_AT_FIRST = 30;

export const detectorsOf = (days: number) =>
  queryOptions({
    queryKey: ["calibration", "detectors", days],
    queryFn: ({ signal }) => {
      const to = new Date();
      const from = new Date(to.getTime() - days * DAY_MS);
      const query = { from: from.toISOString(), to: to.toISOString() };
      return take(api.GET("/v1/detectors", { params: { query }, signal }));
    },
    staleTime: 60_000,
  });

export const DECODERS = queryOptions({
  queryKey: ["calibration", "decoders"],
  queryFn: ({ signal }) => take(api.GET("/v1/decoders", { signal })),
  staleTime: 60_000,
});

export function askAhead(rights: Rights): void {
  if (hasScope(rights, "flags:read")) void queries.prefetchQuery(detectorsOf(DAYS_AT_FIRST));
  if (hasScope(rights, "explanations:read")) void queries.prefetchQuery(DECODERS);
}
