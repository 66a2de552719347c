/** The token strip: every sampled position in order, gaps hatched, of which only the lines in view are drawn. */
import {
  memo,
  type RefObject,
  useDeferredValue,
  useEffect,
  useId,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
} from "react";
import { Untrusted } from "@/ui/untrusted";
import { classesOf, type Lens, wordsOf } from "./lens";
import {
  type Cell,
  cellsOf,
  gapText,
  lineOfIndex,
  linesOf,
  PLAIN,
  type Row,
  readingOf,
  tokenText,
} from "./rows";

const LINE = 36;
const GUTTER = 7;
/** Lines that are drawn together, and beyond the view on either side. */
const STEP = 2;
/** As many lines as the strip is high at most, see request.css. */
const VISIBLE = 16;
/** Widths, in columns, that a class of request.css has. */
const CLASSED = 20;

type Props = {
  rows: readonly Row[];
  lens: Lens;
  decoder: string | null;
  selected: number;
  isLocked: boolean;
  frame: RefObject<HTMLDivElement | null>;
  onHover: (index: number) => void;
  onSelect: (index: number) => void;
  onLock: (index: number) => void;
};

export function Strip(props: Props) {
  const { rows, lens, decoder, selected, frame } = props;
  // Marks change with the strip's class, in one frame; what a screen reader is told of each cell follows it.
  const told = useDeferredValue(lens);
  const id = useId();
  const ruler = useRef<HTMLSpanElement>(null);
  const columns = useColumns(frame, ruler);
  const cells = useMemo(() => cellsOf(rows), [rows]);
  const lines = useMemo(() => (columns === 0 ? [] : linesOf(cells, columns - GUTTER)), [cells, columns]);
  const lineOf = useMemo(() => lineOfIndex(lines), [lines]);
  const [first, setFirst] = useState(0);
  const [isBegun, setBegun] = useState(false);
  const [isSeen, setSeen] = useState(false);
  // A line is some thirty elements: half of the view is drawn in the first frame, and what is out of view at last.
  useEffect(() => {
    const frame = requestAnimationFrame(() => setBegun(true));
    const timer = setTimeout(() => setSeen(true), 200);
    return () => {
      cancelAnimationFrame(frame);
      clearTimeout(timer);
    };
  }, []);

  useEffect(() => {
    const element = frame.current;
    const line = lineOf[selected];
    if (element === null || line === undefined) return;
    const top = line * LINE;
    if (top < element.scrollTop + LINE) element.scrollTop = top - 2 * LINE;
    else if (top > element.scrollTop + element.clientHeight - 2 * LINE) {
      element.scrollTop = top - element.clientHeight + 3 * LINE;
    }
  }, [selected, lineOf, frame]);

  const start = Math.max(0, first - STEP);
  const drawn = isSeen ? VISIBLE + 2 * STEP : isBegun ? VISIBLE : VISIBLE / 2;
  const end = Math.min(lines.length, first + drawn);
  const to = (index: number) => props.onSelect(Math.min(Math.max(index, 0), rows.length - 1));
  const isDrawn = selected >= 0 && (lineOf[selected] ?? -1) >= start && (lineOf[selected] ?? -1) < end;

  return (
    <div
      ref={frame}
      className={`strip lens-${lens}`}
      style={{ height: lines.length * LINE + 2 }}
      role="listbox"
      aria-label={`${rows.length} sampled positions, in order`}
      tabIndex={0}
      aria-activedescendant={isDrawn ? `${id}-${selected}` : undefined}
      onScroll={(event) => {
        const line = Math.floor(event.currentTarget.scrollTop / LINE / STEP) * STEP;
        if (line !== first) setFirst(line);
      }}
      onKeyDown={(event) => {
        const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        const page = Math.max(1, Math.floor(event.currentTarget.clientHeight / LINE) - 1);
        const byLines = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page }[event.key];
        const end = { Home: 0, End: rows.length - 1 }[event.key];
        if (by !== undefined) to(selected + by);
        else if (byLines !== undefined) to(onLine(lines, lineOf, selected, byLines));
        else if (end !== undefined) to(end);
        else return;
        event.preventDefault();
      }}
      onMouseOver={(event) => {
        const index = indexOf(event.target);
        if (index !== null) props.onHover(index);
      }}
      onMouseLeave={() => props.onHover(-1)}
      onClick={(event) => {
        const index = indexOf(event.target);
        if (index !== null) props.onLock(index);
      }}
      onFocus={() => {
        if (selected < 0 && rows.length > 0) props.onSelect(0);
      }}
    >
      <span ref={ruler} className="strip-ruler" aria-hidden="true">
        0000000000
      </span>
      <div className="strip-lines" style={{ height: lines.length * LINE }}>
        {lines.slice(start, end).map((line, offset) => {
          const number = start + offset;
          const isSelectedHere = selected >= 0 && lineOf[selected] === number;
          return (
            <Line
              key={number}
              number={number}
              cells={line}
              columns={columns - GUTTER}
              lens={told}
              decoder={decoder}
              id={id}
              total={rows.length}
              selected={isSelectedHere ? selected : -1}
              isLocked={isSelectedHere && props.isLocked}
            />
          );
        })}
      </div>
    </div>
  );
}

type LineProps = {
  number: number;
  cells: readonly Cell[];
  columns: number;
  lens: Lens;
  decoder: string | null;
  id: string;
  total: number;
  selected: number;
  isLocked: boolean;
};

const Line = memo(function Line({
  number,
  cells,
  columns: across,
  lens,
  decoder,
  id,
  total,
  selected,
  isLocked,
}: LineProps) {
  const head = cells[0];
  return (
    <div className="strip-line" style={{ transform: `translateY(${number * LINE}px)` }}>
      <span className="strip-gutter" aria-hidden="true">
        {head === undefined ? "" : head.kind === "gap" ? head.from : head.row.position}
      </span>
      {cells.map((cell) => {
        const most = Math.max(4, across - 2);
        const columns = Math.min(cell.columns, most) + 2;
        // Cells of a class share one style; a style of its own is parsed and resolved for each.
        const style = columns > CLASSED ? { width: `${columns}ch` } : undefined;
        if (cell.kind === "gap") {
          return (
            <span
              key={`gap-${cell.from}`}
              className={`cell gap w${columns}`}
              style={style}
              aria-hidden="true"
            >
              <span>{gapText(cell.tokens)}</span>
            </span>
          );
        }
        const reading = readingOf(cell.row, decoder);
        const isSelected = cell.index === selected;
        const text = tokenText(cell.row);
        const isPlain = PLAIN.test(text); // thousands of these scroll faster without elements of their own
        const size = isPlain && cell.columns <= most ? "" : " wide";
        return (
          // biome-ignore lint/a11y/useFocusableInteractive: the listbox has the focus, and says which option is active
          <span
            key={cell.index}
            id={isSelected ? `${id}-${cell.index}` : undefined}
            role="option"
            aria-selected={isSelected}
            aria-posinset={cell.index + 1}
            aria-setsize={total}
            aria-label={labelOf(cell, wordsOf(lens, reading))}
            data-index={cell.index}
            className={`cell w${columns} ${classesOf(reading)}${size}${isSelected ? (isLocked ? " selected locked" : " selected") : ""}`}
            style={style}
          >
            {isPlain ? text : <Untrusted text={text} limit={40} />}
          </span>
        );
      })}
    </div>
  );
});

function labelOf(cell: Cell & { kind: "token" }, words: string): string {
  const token = cell.row.token_text === null ? "token withheld" : `token ${tokenText(cell.row)}`;
  const skipped = cell.skipped > 0 ? `; ${cell.skipped} before it not sampled` : "";
  return `position ${cell.row.position}, ${token}, ${words}${skipped}`;
}

/** Return the index of the token that is `by` lines away, in about the same place. */
function onLine(lines: readonly Cell[][], lineOf: readonly number[], selected: number, by: number): number {
  const own = lineOf[selected] ?? 0;
  const tokens = (number: number) => (lines[number] ?? []).filter((cell) => cell.kind === "token");
  const place = tokens(own).findIndex((cell) => cell.index === selected);
  for (let line = own + by; line >= 0 && line < lines.length; line += Math.sign(by)) {
    const found = tokens(line);
    const cell = found[Math.min(Math.max(place, 0), found.length - 1)];
    if (cell !== undefined) return cell.index;
  }
  return by > 0 ? Number.MAX_SAFE_INTEGER : 0;
}

function indexOf(target: EventTarget): number | null {
  const cell = target instanceof Element ? target.closest<HTMLElement>("[data-index]") : null;
  return cell === null ? null : Number(cell.dataset.index);
}

/** Return how many characters of the strip's font fit into a line; 0 until it is laid out. */
function useColumns(frame: RefObject<HTMLElement | null>, ruler: RefObject<HTMLElement | null>): number {
  const [columns, setColumns] = useState(0);
  useLayoutEffect(() => {
    const element = frame.current;
    if (element === null) return;
    const measure = () => {
      const character = (ruler.current?.getBoundingClientRect().width ?? 0) / 10;
      if (character > 0) setColumns(Math.max(20, Math.floor((element.clientWidth - 12) / character)));
    };
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, [frame, ruler]);
  return columns;
}
