/** What the page shows first. */
import { infiniteQueryOptions } from "@tanstack/react-query";
import { api, take } from "@/api/client";
import { hasScope, type Rights } from "@/app/caller";
import { queries } from "@/app/queries";
import { addressOf, apiQueryOf, type Search, searchOf } from "./query";

const PAGE = 50;

export const foundOf = (search: Search) =>
  infiniteQueryOptions({
    queryKey: ["search", addressOf(search)],
    queryFn: ({ pageParam, signal }) =>
      take(
        api.GET("/v1/explanations", {
          params: {
            query: {
              ...apiQueryOf(search),
              limit: PAGE,
              ...(pageParam === null ? {} : { cursor: pageParam }),
            },
          },
          signal,
        }),
      ),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next_cursor,
    staleTime: 60_000,
  });

export function askAhead(rights: Rights): void {
  const search = searchOf(location.search);
  // Words are looked for of those who may read them, within a time that the page adds to the address.
  if (search.q === "" && hasScope(rights, "explanations:read")) {
    void queries.prefetchInfiniteQuery(foundOf(searchOf(addressOf(search))));
  }
}
