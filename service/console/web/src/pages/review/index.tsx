/** The review queue: incidents by severity and age at the left, the open one beside it, all by keyboard. */
import { useMemo } from "react";
import { Link, useLocation, useParams, useSearch } from "wouter";
import { useShortcuts } from "@/app/keys";
import { useSession } from "@/app/session";
import { whole } from "@/ui/numbers";
import { Page } from "@/ui/page";
import { Failed, Loading } from "@/ui/states";
import { useQueue } from "./data";
import { IncidentPanel } from "./incident";
import { isWaiting, nextAfter, SHOWN, type Shown, shownOf } from "./queue";
import { QueueList } from "./queue-list";
import { Told, tell } from "./told";
import "./review.css";

export default function ReviewPage() {
  const me = useSession();
  const { incident: open = null } = useParams<{ incident?: string }>();
  const [, navigate] = useLocation();
  const search = useSearch();
  const shown = shownOf(search);
  const asked = useQueue(shown);
  const queue = useMemo(() => asked.data?.pages.flatMap((page) => page.items) ?? [], [asked.data]);
  const place = queue.findIndex(({ id }) => id === open);

  function addressOf(id: string | null, show: Shown = shown): string {
    return `/review${id === null ? "" : `/${id}`}${show === "all" ? "" : `?show=${show}`}`;
  }

  function step(by: 1 | -1) {
    const next = queue[place < 0 ? 0 : Math.min(Math.max(place + by, 0), queue.length - 1)];
    if (next !== undefined && next.id !== open) navigate(addressOf(next.id));
  }

  function goOn() {
    const next = open === null ? null : nextAfter(queue, open, place, me);
    if (next === null && asked.hasNextPage) tell("More incidents are below; load them to go on.");
    navigate(addressOf(next));
  }

  useShortcuts({ escape: () => open !== null && navigate(addressOf(null)) });

  return (
    <Page title="Review">
      <Told />
      <div className="review" data-open={open === null ? undefined : ""}>
        <section aria-label="Queue" className="review-side">
          <nav className="row" aria-label="Shown">
            {(Object.keys(SHOWN) as Shown[]).map((show) => (
              <Link
                key={show}
                href={addressOf(open, show)}
                className="button"
                aria-current={show === shown ? "true" : undefined}
              >
                {SHOWN[show]}
              </Link>
            ))}
          </nav>
          {asked.isPending && <Loading what="the queue" />}
          {asked.error !== null && <Failed error={asked.error} retry={() => void asked.refetch()} />}
          {asked.data !== undefined && (
            <>
              <p className="quiet number">
                {whole(queue.filter((one) => isWaiting(one, me)).length)} of {whole(queue.length)}
                {asked.hasNextPage && " loaded"} undecided wait for you
              </p>
              <QueueList queue={queue} me={me} open={open} addressOf={addressOf} onStep={step} />
            </>
          )}
          {asked.hasNextPage && (
            <button
              type="button"
              disabled={asked.isFetchingNextPage}
              onClick={() => void asked.fetchNextPage()}
            >
              Load more
            </button>
          )}
        </section>
        <div className="review-main">
          {open === null ? (
            <p className="state">
              <kbd>J</kbd> and <kbd>K</kbd> move, <kbd>Enter</kbd> opens. In an incident <kbd>a</kbd> takes
              it, <kbd>c</kbd> confirms, <kbd>d</kbd> dismisses, and <kbd>Esc</kbd> goes back.
            </p>
          ) : (
            <>
              <p className="review-back">
                <Link href={addressOf(null)}>Back to the queue</Link>
              </p>
              <IncidentPanel key={open} id={open} me={me} newest={queue[place]?.version} onDone={goOn} />
            </>
          )}
        </div>
      </div>
    </Page>
  );
}
