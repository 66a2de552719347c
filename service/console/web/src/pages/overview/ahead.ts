/** What the page shows first. */
import { queryOptions } from "@tanstack/react-query";
import { api, take } from "@/api/client";
import { hasScope, type Rights } from "@/app/caller";
import { queries } from "@/app/queries";
import { lastDay } from "./range";

export const REFRESH_MS = 60_000;

export const STATEMENT = queryOptions({
  queryKey: ["overview", "statement"],
  queryFn: ({ signal }) =>
    take(api.GET("/v1/coverage/statement", { params: { query: lastDay(Date.now()) }, signal })),
  staleTime: REFRESH_MS / 2,
});

export function askAhead(rights: Rights): void {
  if (hasScope(rights, "coverage:read")) void queries.prefetchQuery(STATEMENT);
}
