/** The answers of the service that the page holds. */
import { QueryClient } from "@tanstack/react-query";
import { ApiError } from "@/api/client";

export const queries = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 10_000,
      refetchOnWindowFocus: false,
      // What the service refused stays refused; only a service that is away is asked again.
      retry: (failures, error) => failures < 2 && (!(error instanceof ApiError) || error.status >= 500),
    },
  },
});
