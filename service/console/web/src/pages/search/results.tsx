/** What was found, page by page, newest first. */
import { useInfiniteQuery } from "@tanstack/react-query";
import { useMemo } from "react";
import { useLocation } from "wouter";
import { useShortcuts } from "@/app/keys";
import { AskForText, usePurpose } from "@/app/purpose";
import { useSession } from "@/app/session";
import { whole } from "@/ui/numbers";
import { requestAddress } from "@/ui/request-address";
import { Absent, Failed, Loading } from "@/ui/states";
import { Time } from "@/ui/time";
import { VirtualList } from "@/ui/virtual-list";
import { foundOf } from "./ahead";
import type { Range } from "./highlight";
import { Nothing } from "./nothing";
import type { Search } from "./query";
import { type Reading, Row } from "./row";

const NO_RANGES: readonly Range[] = [];

type Props = {
  search: Search;
  /** Id of the selected reading, or null. */
  selected: string | null;
  onSelect: (id: string | null) => void;
};

export function Results(props: Props) {
  const purpose = usePurpose();
  const { may_read_text } = useSession();
  if (props.search.q !== "" && (purpose === null || !may_read_text)) {
    return (
      <>
        <Absent what="Search for words" why="To look for words in readings is to read them." />
        <AskForText />
      </>
    );
  }
  return <Found {...props} />;
}

function Found({ search, selected, onSelect }: Props) {
  const [, navigate] = useLocation();
  const { found, readings, ranges } = useFound(search);
  const index = readings.findIndex(({ id }) => id === selected);
  useShortcuts({
    escape: () => {
      if (selected === null) navigate("/");
      else onSelect(null);
    },
  });
  if (found.isPending) return <Loading what="readings" />;
  if (found.error !== null && found.data === undefined) {
    return <Failed error={found.error} retry={() => void found.refetch()} />;
  }
  const withheld = readings.some(({ text }) => text === null);
  return (
    <section aria-label="Results" className="search-results">
      <Searched search={search} found={found} count={readings.length} />
      {withheld && <AskForText />}
      {readings.length > 0 && (
        <VirtualList
          label="Readings, newest first"
          items={readings}
          keyOf={({ id }) => id}
          row={(reading) => <Row reading={reading} ranges={ranges.get(reading.id) ?? NO_RANGES} />}
          selected={index}
          onSelect={(to) => onSelect(readings[to]?.id ?? null)}
          onOpen={(at) => {
            const reading = readings[at];
            if (reading !== undefined) navigate(requestAddress(reading, reading.position));
          }}
          estimate={132}
          total={found.hasNextPage ? -1 : readings.length}
          onEnd={() => {
            if (found.hasNextPage && !found.isFetchingNextPage) void found.fetchNextPage();
          }}
        />
      )}
      {readings.length === 0 && !found.hasNextPage && <Nothing search={search} />}
    </section>
  );
}

function useFound(search: Search) {
  const found = useInfiniteQuery(foundOf(search));
  const pages = found.data?.pages;
  const readings = useMemo<Reading[]>(() => pages?.flatMap(({ items }) => items) ?? [], [pages]);
  const ranges = useMemo(
    () =>
      new Map(
        pages?.flatMap((page) =>
          (page.search?.highlights ?? []).map((one) => [one.explanation_id, one.ranges] as const),
        ),
      ),
    [pages],
  );
  return { found, readings, ranges };
}

type Finding = ReturnType<typeof useFound>["found"];

/** How much is shown, since when all is searched, and the way on. */
function Searched({ search, found, count }: { search: Search; found: Finding; count: number }) {
  const since = found.data?.pages.at(-1)?.search?.searched_since ?? null;
  return (
    <div className="row" role="status">
      <span>
        {whole(count)} {count === 1 ? "reading" : "readings"}
        {found.hasNextPage ? " so far; there may be more." : ", all that there are."}
      </span>
      {search.q !== "" && since !== null && (
        <span className="quiet">
          Searched back to <Time at={since} />.
        </span>
      )}
      {found.hasNextPage && (
        <button
          type="button"
          disabled={found.isFetchingNextPage}
          onClick={() => void found.fetchNextPage()}
        >
          {found.isFetchingNextPage ? "Searching…" : "Search further back"}
        </button>
      )}
      {found.error !== null && <span className="fault">{found.error.message}</span>}
    </div>
  );
}
