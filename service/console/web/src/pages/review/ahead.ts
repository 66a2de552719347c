/** What the page shows first. */
import { infiniteQueryOptions } from "@tanstack/react-query";
import { api, take } from "@/api/client";
import { hasScope, type Rights } from "@/app/caller";
import { queries } from "@/app/queries";
import { type Shown, shownOf } from "./queue";

const PAGE = 50;
export const QUEUE = ["review", "queue"] as const;

export const queueOf = (shown: Shown) =>
  infiniteQueryOptions({
    queryKey: [...QUEUE, shown],
    queryFn: ({ pageParam, signal }) => {
      const assignee = ({ all: undefined, mine: "me", free: "none" } as const)[shown];
      const query = {
        order: "queue" as const,
        state: "undecided" as const,
        limit: PAGE,
        ...(assignee && { assignee }),
        ...(pageParam && { cursor: pageParam }),
      };
      return take(api.GET("/v1/incidents", { params: { query }, signal }));
    },
    initialPageParam: "",
    getNextPageParam: (page) => page.next_cursor,
  });

export function askAhead(rights: Rights): void {
  if (hasScope(rights, "flags:read")) void queries.prefetchInfiniteQuery(queueOf(shownOf(location.search)));
}
