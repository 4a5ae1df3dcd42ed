import { Meter } from "../../components/Meter";
import { When } from "../../components/When";
import { count, duration } from "../../format";
import { usage } from "../../texts/en/usage";

const t = usage.own;

interface Left {
  readonly limit: number;
  readonly left: number;
  readonly reset_seconds: number | null;
}

/** GET /key. */
export interface OwnKeyInfo {
  readonly id: string;
  readonly name: string;
  readonly description: string;
  readonly admin: boolean;
  readonly expires: string | null;
  /** `null`: all. */
  readonly models: readonly string[] | null;
  readonly personalities: readonly string[] | null;
  readonly limits: Readonly<Record<string, number>>;
  readonly left: Readonly<Record<string, Left>>;
}

/** What the key in use may do, and what is left of its limits. */
export function OwnKey({ info }: { readonly info: OwnKeyInfo }) {
  const longest = info.limits["max_tokens"];
  return (
    <section class="own" aria-labelledby="own">
      <h2 id="own">
        {t.title}: {info.name}
      </h2>
      <dl>
        <dt>{t.models}</dt>
        <dd>{info.models?.join(", ") ?? t.all}</dd>
        <dt>{t.personalities}</dt>
        <dd>{info.personalities?.join(", ") ?? t.all}</dd>
        <dt>{t.expires}</dt>
        <dd>{info.expires === null ? t.never : <When time={info.expires} />}</dd>
        {longest !== undefined && (
          <>
            <dt>{t.longest}</dt>
            <dd>{t.longestValue(longest)}</dd>
          </>
        )}
        {Object.entries(info.left).map(([name, one]) => (
          <LimitRow key={name} name={t.limits[name] ?? name} one={one} />
        ))}
      </dl>
    </section>
  );
}

function LimitRow({ name, one }: { readonly name: string; readonly one: Left }) {
  const words = t.left(count(one.left), count(one.limit));
  const used = one.limit - one.left > 0 && one.reset_seconds !== null;
  return (
    <>
      <dt>{name}</dt>
      <dd>
        {words}
        {used && <span class="soft">, {t.full(duration(one.reset_seconds ?? 0))}</span>}
        <Meter label={name} value={one.left} max={one.limit} text={words} />
      </dd>
    </>
  );
}
