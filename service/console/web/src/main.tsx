import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { ApiError, CONSOLE } from "@/api/client";
import { App } from "@/app/app";
import { loadAhead } from "@/app/routes";
import { applyTheme, storedTheme } from "@/app/theme";
import "@/styles/tokens.css";
import "@/styles/base.css";
import "@/styles/parts.css";

applyTheme(storedTheme());
loadAhead(location.pathname.slice(CONSOLE.length));

const queries = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 10_000,
      refetchOnWindowFocus: false,
      // What the service refused stays refused; only a service that is away is asked again.
      retry: (failures, error) => failures < 2 && (!(error instanceof ApiError) || error.status >= 500),
    },
  },
});

const root = document.getElementById("root");
if (root === null) throw new Error("index.html has no element with the id root");
createRoot(root).render(
  <StrictMode>
    <QueryClientProvider client={queries}>
      <App />
    </QueryClientProvider>
  </StrictMode>,
);
