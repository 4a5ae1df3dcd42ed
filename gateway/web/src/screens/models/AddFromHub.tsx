import { useSignal } from "@preact/signals";
import { Button } from "../../components/Button";
import { ErrorNote } from "../../components/ErrorNote";
import { type Column, Table } from "../../components/Table";
import { withCode } from "../../components/withCode";
import { size } from "../../format";
import { overview } from "../../gateway/live";
import { askJson } from "../../gateway/request";
import { modelEntry } from "../../texts/en/modelEntry";
import { beginPull } from "./pulls";

const t = modelEntry.add.hub;

/** GET /admin/hub: what `llm-gateway pull OWNER/REPO --json` prints. */
interface Offer {
  readonly repository: string;
  readonly gated: string | boolean;
  readonly quantisations: readonly Quantisation[];
}

interface Quantisation {
  readonly name: string;
  readonly files: readonly string[];
  readonly missing: unknown;
  readonly size: number;
  readonly memory: number;
  readonly fits: string;
  readonly recommended: boolean;
}

/** A repository of the hub: its quantisations, which of them fit, and fetching one. */
export function AddFromHub({ onBegun }: { readonly onBegun: () => void }) {
  const repository = useSignal("");
  const node = useSignal("");
  const offer = useSignal<Offer | null>(null);
  const busy = useSignal(false);
  const error = useSignal<unknown>(null);
  const run = async (action: () => Promise<void>): Promise<void> => {
    busy.value = true;
    error.value = null;
    try {
      await action();
    } catch (reason) {
      error.value = reason;
    } finally {
      busy.value = false;
    }
  };
  const look = async (): Promise<void> => {
    offer.value = null;
    const query = new URLSearchParams({ model: repository.value.trim() });
    if (node.value) query.set("node", node.value);
    offer.value = await askJson<Offer>(`/admin/hub?${query}`);
  };
  const fetchOne = async (one: Quantisation): Promise<void> => {
    await beginPull(`${offer.value?.repository}:${one.name}`, node.value || null);
    onBegun();
  };
  const nodes = (overview.value?.nodes ?? []).filter((one) => one.up);
  const columns: readonly Column<Quantisation>[] = [
    {
      head: t.quantisation,
      cell: (one) => (
        <>
          {one.name} {one.recommended && <span class="badge">{t.recommended}</span>}
          <div class="hub-narrow soft">{size(one.size)}</div>
        </>
      ),
      sort: (one) => one.name,
    },
    {
      head: t.size,
      cell: (one) => size(one.size),
      sort: (one) => one.size,
      number: true,
      kind: "hub-wide",
    },
    {
      head: t.memory,
      cell: (one) => (
        <>
          {size(one.memory)}
          <div class="soft">{t.fitsWords[one.fits] ?? one.fits}</div>
        </>
      ),
      sort: (one) => one.memory,
      number: true,
    },
    {
      head: t.fetch,
      cell: (one) =>
        isMissing(one) ? (
          <span class="soft">{t.missing}</span>
        ) : (
          <Button
            kind={one.recommended ? "primary" : undefined}
            disabled={busy.value}
            onClick={() => void run(() => fetchOne(one))}
          >
            {t.fetch} <span class="visually-hidden">{one.name}</span>
          </Button>
        ),
    },
  ];
  return (
    <>
      <form
        class="hub-form"
        onSubmit={(event) => {
          event.preventDefault();
          void run(look);
        }}
      >
        <label class="field">
          <span>{t.repository}</span>
          <input
            class="input mono"
            required
            placeholder="unsloth/Qwen3-4B-GGUF"
            autoComplete="off"
            spellcheck={false}
            value={repository}
            onInput={(event) => (repository.value = event.currentTarget.value)}
          />
          <span class="hint">{withCode(t.hint)}</span>
        </label>
        {nodes.length > 0 && (
          <label class="field">
            <span>{t.node}</span>
            <select
              class="input"
              value={node}
              onChange={(event) => {
                node.value = event.currentTarget.value;
                if (offer.value) void run(look); // something else fits there
              }}
            >
              <option value="">{t.here}</option>
              {nodes.map(({ name }) => (
                <option key={name} value={name}>
                  {name}
                </option>
              ))}
            </select>
          </label>
        )}
        <Button kind="primary" type="submit" disabled={busy.value || !repository.value.trim()}>
          {t.look}
        </Button>
      </form>
      {busy.value && !offer.value && <p class="soft">{t.looking}</p>}
      {error.value !== null && <ErrorNote error={error.value} />}
      {offer.value && (
        <>
          {offer.value.gated !== false && <p class="note warn">{withCode(t.gated)}</p>}
          <div class="hub-offer">
            <Table
              title={offer.value.repository}
              columns={columns}
              rows={offer.value.quantisations}
              rowKey={(one) => one.name}
              first={{ head: t.memory, descending: false }}
            />
          </div>
        </>
      )}
    </>
  );
}

function isMissing(one: Quantisation): boolean {
  return Array.isArray(one.missing) ? one.missing.length > 0 : Boolean(one.missing);
}
