/** What happens now, by server-sent events: one connection for the page that shows it. */
import { useEffect, useState } from "react";
import { ROOT } from "@/api/client";
import { after, LIVE_EVENTS, type LiveState, NOTHING } from "@/ui/live-state";

const TRY_AGAIN_MS = 30_000;

/** Listen for as long as the component is shown. A browser takes a lost connection up again by itself. */
export function useLive(isWanted: boolean): LiveState {
  const [state, setState] = useState(NOTHING);
  useEffect(() => {
    if (!isWanted) return;
    let source: EventSource;
    let again: ReturnType<typeof setTimeout> | undefined;
    function listen() {
      source = new EventSource(`${ROOT}/v1/live`);
      for (const name of LIVE_EVENTS) {
        source.addEventListener(name, (event) => {
          setState((known) => after(known, name, JSON.parse((event as MessageEvent<string>).data)));
        });
      }
      source.addEventListener("error", () => {
        const isRefused = source.readyState === EventSource.CLOSED;
        setState((known) => ({ ...known, status: isRefused ? "refused" : "connecting" }));
        if (isRefused) again = setTimeout(listen, TRY_AGAIN_MS);
      });
    }
    listen();
    return () => {
      clearTimeout(again);
      source.close();
    };
  }, [isWanted]);
  return state;
}
