import { QueryClientProvider } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { CONSOLE } from "@/api/client";
import { App } from "@/app/app";
import { queries } from "@/app/queries";
import { loadAhead } from "@/app/routes";
import { SESSION_QUERY } from "@/app/session";
import { applyTheme, storedTheme } from "@/app/theme";
import "@/styles/tokens.css";
import "@/styles/base.css";
import "@/styles/parts.css";

/** How long to wait before it is drawn that something is coming. */
const PATIENCE_MS = 1000;

applyTheme(storedTheme());

const root = document.getElementById("root");
if (root === null) throw new Error("index.html has no element with the id root");
const drawn = createRoot(root);

// Drawing costs more than asking: what is asked for comes meanwhile, and is not drawn piece by piece.
const caller = queries.fetchQuery(SESSION_QUERY).catch(() => null); // told where it is shown
const page = loadAhead(location.pathname.slice(CONSOLE.length), caller);
void Promise.race([page, new Promise((resolve) => setTimeout(resolve, PATIENCE_MS))]).then(() =>
  drawn.render(
    <StrictMode>
      <QueryClientProvider client={queries}>
        <App />
      </QueryClientProvider>
    </StrictMode>,
  ),
);
