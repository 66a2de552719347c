/** What the page shows first. */
import { queryOptions } from "@tanstack/react-query";
import { api, take } from "@/api/client";
import { hasScope, type Rights } from "@/app/caller";
import { queries } from "@/app/queries";
import { type Range, rangeOf } from "./figures";

export const RANGE_AT_FIRST: Range = "day";

export const conceptsOf = (range: Range) =>
  queryOptions({
    queryKey: ["concepts", range],
    queryFn: ({ signal }) =>
      take(api.GET("/v1/concepts", { params: { query: rangeOf(range, new Date()) }, signal })),
  });

export function askAhead(rights: Rights): void {
  if (!location.pathname.endsWith("/admin/concepts") || !hasScope(rights, "flags:read")) return;
  void queries.prefetchQuery(conceptsOf(RANGE_AT_FIRST));
}
