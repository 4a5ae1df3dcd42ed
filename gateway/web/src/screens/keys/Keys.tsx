/** Keys: who may use the box, and how much. For admin keys. */

import { useSignal } from "@preact/signals";
import { Button } from "../../components/Button";
import { Confirm, Dialog } from "../../components/Dialog";
import { Empty } from "../../components/Empty";
import { ErrorNote } from "../../components/ErrorNote";
import { Icon } from "../../components/Icon";
import { Table, type Column } from "../../components/Table";
import { toast } from "../../components/Toasts";
import { When } from "../../components/When";
import { usePolled } from "../../gateway/polled";
import { askJson } from "../../gateway/request";
import { actions } from "../../texts/en/common";
import { keys as t, limitWords } from "../../texts/en/keys";
import { changed, created, type CreatedKey, type Fields, type Key } from "./fields";
import { KeyForm } from "./KeyForm";
import { KeyMade } from "./KeyMade";
import "./keys.css";

/** Seconds between two looks at when keys were last used. */
const EVERY = 10;

/** What is open above the list. */
type Open =
  | { readonly what: "create" }
  | { readonly what: "created"; readonly key: CreatedKey }
  | { readonly what: "change" | "revoke"; readonly key: Key };

export default function Keys() {
  const listed = usePolled<{ readonly keys: readonly Key[] }>("/admin/keys", EVERY);
  const refused = useSignal<unknown>(null); // why a key was not revoked
  const open = useSignal<Open | null>(null);
  const ended = useSignal(false);
  const load = (): void => {
    refused.value = null;
    listed.again();
  };
  const close = (): void => void (open.value = null);
  const create = async (fields: Fields): Promise<void> => {
    const body = created(fields);
    const key = await askJson<CreatedKey>("/admin/keys", { method: "POST", body });
    open.value = { what: "created", key };
    load();
  };
  const change = async (key: Key, fields: Fields): Promise<void> => {
    const body = changed(key, fields);
    await askJson(`/admin/keys/${encodeURIComponent(key.id)}`, { method: "PATCH", body });
    close();
    toast(t.saved(fields.name));
    load();
  };
  const revoke = async (key: Key): Promise<void> => {
    try {
      await askJson(`/admin/keys/${encodeURIComponent(key.id)}`, { method: "DELETE" });
      toast(t.revoked(key.name));
      load();
    } catch (reason) {
      refused.value = reason;
    }
  };
  const keys = listed.value.value?.keys ?? null;
  const error = refused.value ?? listed.error.value;
  const all = keys ?? [];
  const over = all.filter((key) => key.state !== "ok").length;
  const shown = ended.value ? all : all.filter((key) => key.state === "ok");
  const now = open.value;
  return (
    <section class="screen keys">
      <div class="keys-head">
        <div>
          <h1 class="in-topbar">{t.title}</h1>
          <p class="soft">{t.about}</p>
        </div>
        <Button kind="primary" onClick={() => (open.value = { what: "create" })}>
          <Icon name="plus" size={16} /> {t.create}
        </Button>
      </div>
      {error !== null && (
        <ErrorNote error={error}>
          <p>
            <Button onClick={load}>{actions.tryAgain}</Button>
          </p>
        </ErrorNote>
      )}
      {keys === null && error === null && <p class="soft">{actions.loading}</p>}
      {keys !== null && shown.length === 0 && (
        <Empty title={t.emptyTitle}>
          <p>{t.about}</p>
        </Empty>
      )}
      {shown.length > 0 && (
        <Table
          title={t.table}
          titleHidden
          columns={columns((what, key) => (open.value = { what, key }))}
          rows={shown}
          rowKey={(key) => key.id}
          first={{ head: t.heads.used, descending: true }}
        />
      )}
      {over > 0 && (
        <label>
          <input
            type="checkbox"
            checked={ended.value}
            onChange={(event) => (ended.value = event.currentTarget.checked)}
          />{" "}
          {t.showEnded(over)}
        </label>
      )}
      {now?.what === "create" && (
        <Dialog title={t.createTitle} onClose={close}>
          <KeyForm of={null} action={t.create} onSave={create} onClose={close} />
        </Dialog>
      )}
      {now?.what === "change" && (
        <Dialog title={t.changeTitle(now.key.name)} onClose={close}>
          <KeyForm
            of={now.key}
            action={t.save}
            onSave={(fields) => change(now.key, fields)}
            onClose={close}
          />
        </Dialog>
      )}
      {now?.what === "created" && <KeyMade made={now.key} onClose={close} />}
      {now?.what === "revoke" && (
        <Confirm
          title={t.revokeTitle(now.key.name)}
          text={t.revokeText(now.key.name)}
          action={t.revokeAction}
          onConfirm={() => void revoke(now.key)}
          onClose={close}
        />
      )}
    </section>
  );
}

function columns(onOpen: (what: "change" | "revoke", key: Key) => void): readonly Column<Key>[] {
  return [
    {
      head: t.heads.name,
      sort: (key) => key.name.toLowerCase(),
      cell: (key) => (
        <>
          <strong>{key.name}</strong> {key.admin && <span class="key-admin">{t.admin}</span>}
          {key.description && <p>{key.description}</p>}
          <p class="soft">
            <code>{key.id}</code>
          </p>
          <Narrow of={key} />
        </>
      ),
    },
    { head: t.heads.may, kind: "wide", cell: (key) => <May of={key} /> },
    { head: t.heads.limits, kind: "wide", cell: limitsOf },
    { head: t.heads.used, kind: "wide", sort: (key) => key.lastActivity, cell: usedOf },
    { head: t.heads.expires, kind: "wide", sort: (key) => key.expires, cell: expiresOf },
    {
      head: t.heads.actions,
      kind: "action",
      cell: (key) =>
        key.state === "revoked" ? null : (
          <span class="key-actions">
            <Button kind="plain" label={t.change(key.name)} onClick={() => onOpen("change", key)}>
              <Icon name="edit" size={16} />
            </Button>
            <Button
              kind="plain"
              class="key-revoke"
              label={t.revoke(key.name)}
              onClick={() => onOpen("revoke", key)}
            >
              <Icon name="trash" size={16} />
            </Button>
          </span>
        ),
    },
  ];
}

/** What has no column of its own on a phone, as far as there is something to tell. */
function Narrow({ of }: { readonly of: Key }) {
  return (
    <dl class="key-narrow">
      <dt>{t.heads.may}</dt>
      <dd>
        <May of={of} />
      </dd>
      {limitsSet(of).length > 0 && (
        <>
          <dt>{t.heads.limits}</dt>
          <dd>{limitsOf(of)}</dd>
        </>
      )}
      <dt>{t.heads.used}</dt>
      <dd>{usedOf(of)}</dd>
      {(of.expires !== null || of.state === "revoked") && (
        <>
          <dt>{t.heads.expires}</dt>
          <dd>{expiresOf(of)}</dd>
        </>
      )}
    </dl>
  );
}

function usedOf({ lastActivity }: Key) {
  return lastActivity === null ? t.never : <When time={lastActivity} />;
}

function expiresOf({ state, expires }: Key) {
  if (state === "revoked") return t.states["revoked"];
  if (expires === null) return t.never;
  return (
    <>
      {state === "expired" && `${t.states["expired"]}, `}
      <When time={expires} />
    </>
  );
}

function May({ of }: { readonly of: Key }) {
  if (of.metrics && !of.admin) return <>{t.metrics}</>;
  if (of.models === null && of.personalities === null) return <>{t.everything}</>;
  const personalities =
    of.personalities === null
      ? t.allPersonalities
      : of.personalities.join(", ") || t.noPersonalities;
  return (
    <>
      {of.models === null ? t.allModels : of.models.join(", ")}
      <br />
      <span class="soft">{personalities}</span>
    </>
  );
}

function limitsSet(key: Key): readonly (readonly [string, number | null])[] {
  return Object.entries(key.limits ?? {}).filter(([, value]) => value !== null);
}

function limitsOf(key: Key) {
  const set = limitsSet(key);
  if (set.length === 0) return t.unlimited;
  return (
    <ul>
      {set.map(([name, value]) => (
        <li key={name}>
          {limitWords[name]?.name ?? name}: {limitWords[name]?.value(value ?? 0) ?? value}
        </li>
      ))}
    </ul>
  );
}
