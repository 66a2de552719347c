/** A long list of which only what is in view is drawn: J and K move, Enter opens. */
import { useVirtualizer } from "@tanstack/react-virtual";
import { type ReactNode, useEffect, useId, useRef } from "react";
import { isNowhere } from "@/app/focus";
import { useShortcuts } from "@/app/keys";

type Props<T> = {
  /** What the list is of, for screen readers. */
  label: string;
  items: readonly T[];
  keyOf: (item: T) => string;
  row: (item: T, isSelected: boolean) => ReactNode;
  /** Index of the selected item; -1 for none. */
  selected: number;
  onSelect: (index: number) => void;
  onOpen: (index: number) => void;
  /** Height of a row before it is measured, in pixels. */
  estimate?: number;
  /** How many there are in all, where later pages are not loaded yet; -1 when unknown. */
  total?: number;
  /** Called when the end comes into view. */
  onEnd?: () => void;
};

export function VirtualList<T>({
  label,
  items,
  keyOf,
  row,
  selected,
  onSelect,
  onOpen,
  estimate = 64,
  total,
  onEnd,
}: Props<T>) {
  const id = useId();
  const frame = useRef<HTMLDivElement>(null);
  const list = useVirtualizer({
    count: items.length,
    getScrollElement: () => frame.current,
    estimateSize: () => estimate,
    getItemKey: (index) => {
      const item = items[index];
      return item === undefined ? index : keyOf(item);
    },
    overscan: 3,
  });
  const rows = list.getVirtualItems();
  const last = rows.at(-1)?.index ?? -1;

  useEffect(() => {
    if (items.length > 0 && last >= items.length - 5) onEnd?.();
  }, [last, items.length, onEnd]);

  function move(to: number) {
    if (items.length === 0) return;
    if (isNowhere()) frame.current?.focus();
    const index = Math.min(Math.max(to, 0), items.length - 1);
    onSelect(index);
    list.scrollToIndex(index);
  }

  useShortcuts({
    j: () => move(selected + 1),
    k: () => move(selected - 1),
    enter: () => {
      if (selected >= 0) onOpen(selected);
    },
  });

  return (
    <div
      ref={frame}
      className="virtual-list"
      role="listbox"
      aria-label={label}
      tabIndex={0}
      aria-activedescendant={selected >= 0 ? `${id}-${selected}` : undefined}
      onKeyDown={(event) => {
        const to = { ArrowDown: selected + 1, ArrowUp: selected - 1, Home: 0, End: items.length - 1 }[
          event.key
        ];
        if (to === undefined) return;
        event.preventDefault();
        move(to);
      }}
    >
      <div className="virtual-rows" style={{ height: list.getTotalSize() }}>
        {rows.map(({ index, key, start }) => {
          const item = items[index];
          if (item === undefined) return null;
          return (
            // biome-ignore lint/a11y/useKeyWithClickEvents: the list has the keys, as its options take no focus
            <div
              key={key}
              id={`${id}-${index}`}
              ref={list.measureElement}
              data-index={index}
              role="option"
              tabIndex={-1}
              aria-selected={index === selected}
              aria-posinset={index + 1}
              aria-setsize={total ?? items.length}
              className="virtual-row"
              style={{ transform: `translateY(${start}px)` }}
              onClick={() => {
                onSelect(index);
                onOpen(index);
              }}
            >
              {row(item, index === selected)}
            </div>
          );
        })}
      </div>
    </div>
  );
}
