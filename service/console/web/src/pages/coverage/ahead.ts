/** What the page shows first. */
import { queryOptions } from "@tanstack/react-query";
import { api, take } from "@/api/client";
import { hasScope, type Rights } from "@/app/caller";
import { queries } from "@/app/queries";
import { type Range, rangeOf } from "./range";

export const statementOf = (range: Range) =>
  queryOptions({
    queryKey: ["coverage", "statement", range],
    queryFn: ({ signal }) => take(api.GET("/v1/coverage/statement", { params: { query: range }, signal })),
    staleTime: 60_000,
  });

export function askAhead(rights: Rights): void {
  if (!hasScope(rights, "coverage:read")) return;
  void queries.prefetchQuery(statementOf(rangeOf(location.search, Date.now())));
}
