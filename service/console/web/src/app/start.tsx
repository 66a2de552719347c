/** Draws the console. */
import { QueryClientProvider } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "@/app/app";
import { queries } from "@/app/queries";
import { loadPage } from "@/app/routes";

/** How long to wait before it is drawn that something is coming. */
const PATIENCE_MS = 1000;

/** Draw the page at a path once its script is there and it is known who asks: not piece by piece, which costs more. */
export async function start(path: string, caller: Promise<void>): Promise<void> {
  const root = document.getElementById("root");
  if (root === null) throw new Error("index.html has no element with the id root");
  const drawn = createRoot(root);
  const patience = new Promise((resolve) => setTimeout(resolve, PATIENCE_MS));
  await Promise.race([Promise.all([loadPage(path), caller]), patience]);
  drawn.render(
    <StrictMode>
      <QueryClientProvider client={queries}>
        <App />
      </QueryClientProvider>
    </StrictMode>,
  );
}
