import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";

export interface Column<Row> {
  readonly head: string;
  readonly cell: (row: Row) => ComponentChildren;
  /** Right-aligned, with tabular figures. */
  readonly number?: boolean;
  /** A class of its cells, for style sheets. */
  readonly kind?: string;
  /** What its cells are sorted by; without it they can't be. */
  readonly sort?: (row: Row) => number | string | null;
}

interface Props<Row> {
  readonly title: string;
  /** Leave the title to screen readers: a heading stands above already. */
  readonly titleHidden?: boolean;
  readonly columns: readonly Column<Row>[];
  readonly rows: readonly Row[];
  readonly rowKey: (row: Row) => string;
  /** The column that it is sorted by at first, and whether the greatest come first. */
  readonly first?: { readonly head: string; readonly descending: boolean };
}

/** A table of a few hundred rows at most, sorted by the heads of its columns. */
export function Table<Row>({ title, titleHidden, columns, rows, rowKey, first }: Props<Row>) {
  const order = useSignal(first ?? null);
  const column = columns.find((one) => one.head === order.value?.head);
  const sorted = column?.sort ? sortedBy(rows, column.sort, order.value?.descending) : rows;
  return (
    <div class="table-frame" tabIndex={0} role="region" aria-label={title}>
      <table class="table">
        <caption class={titleHidden ? "visually-hidden" : undefined}>{title}</caption>
        <thead>
          <tr>
            {columns.map((one) => {
              const current = one.head === order.value?.head ? order.value : null;
              return (
                <th
                  key={one.head}
                  scope="col"
                  class={classOf(one)}
                  aria-sort={
                    current ? (current.descending ? "descending" : "ascending") : undefined
                  }
                >
                  {one.sort ? (
                    <button
                      type="button"
                      onClick={() => {
                        const descending = current ? !current.descending : one.number === true;
                        order.value = { head: one.head, descending };
                      }}
                    >
                      {one.head}
                      {current ? (current.descending ? " ↓" : " ↑") : ""}
                    </button>
                  ) : (
                    one.head
                  )}
                </th>
              );
            })}
          </tr>
        </thead>
        <tbody>
          {sorted.map((row) => (
            <tr key={rowKey(row)}>
              {columns.map((one) => (
                <td key={one.head} class={classOf(one)}>
                  {one.cell(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function classOf<Row>({ number, kind }: Column<Row>): string | undefined {
  return [number && "number", kind].filter(Boolean).join(" ") || undefined;
}

function sortedBy<Row>(
  rows: readonly Row[],
  by: (row: Row) => number | string | null,
  descending = false,
): readonly Row[] {
  const sign = descending ? -1 : 1;
  return [...rows].sort((a, b) => {
    const [x, y] = [by(a), by(b)];
    if (x === y) return 0;
    if (x === null) return 1; // what is unknown comes last, either way
    if (y === null) return -1;
    return x < y ? -sign : sign;
  });
}
